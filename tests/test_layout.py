from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from configparser import ConfigParser
from email.parser import Parser
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from repository import ROOT

import tfcheck

# Root folder X installs as package tfcheck.X.
PACKAGES = {
    "tfcheck": PurePosixPath("tfcheck"),
    "callbacks": PurePosixPath("tfcheck/callbacks"),
    "scripts": PurePosixPath("tfcheck/scripts"),
}
NOT_SOURCE = re.compile(
    r"(^|/)(\.git|\.venv[^/]*|venv[^/]*|env|build|dist|mlruns|mlartifacts|__pycache__"
    r"|\.\w+_cache|\.cache|\.hypothesis|\.idea|\.vscode|[^/]+\.egg-info)(/|$)"
    r"|\.pyc$|(^|/)mlflow\.db"
)
# Written in pieces, or this file would hold what it forbids.
MACHINE_PATH = re.compile(rb"(?<![\w.])/" + rb"(?:work|root|home|Users)/")


def git(*arguments: str) -> list[str] | None:
    """The lines git prints for this repository; None where this is not one."""
    try:
        finished = subprocess.run(
            ["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False
        )
    except OSError:
        return None
    inside = (ROOT / ".git").exists() and finished.returncode in (0, 1)
    return finished.stdout.splitlines() if inside else None


def source_files() -> list[Path]:
    """The files of the repository, relative to its root, links included.

    Those git knows or would add; without git, all but environments, caches and builds.
    """
    listed = git("-c", "core.quotePath=false", "ls-files", "-co", "--exclude-standard")
    if listed is None:
        paths = (path.relative_to(ROOT) for path in ROOT.rglob("*"))
        listed = [path.as_posix() for path in paths if not NOT_SOURCE.search(path.as_posix())]
    found = (ROOT / name for name in sorted(set(listed)))
    return [path.relative_to(ROOT) for path in found if path.is_symlink() or path.is_file()]


def installed_name(path: Path) -> str | None:
    """Where a source file lands in the wheel; None where it does not."""
    folder = PACKAGES.get(path.parts[0])
    return str(folder.joinpath(*path.parts[1:])) if folder and len(path.parts) > 1 else None


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The source distribution, the wheel built from the repository, and the one from the former.

    Built from a copy, since setuptools puts whatever an earlier build left in `build/` into the
    wheel, and with the setuptools of this environment, so without network.
    """
    place = tmp_path_factory.mktemp("layout")
    copy = place / "copy"
    for path in source_files():
        if path.parts[0] != "mlruns_example":
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, copy / path, follow_symlinks=False)

    def build(kind: str, folder: Path, target: Path) -> Path:
        code = f"import setuptools.build_meta as b; b.build_{kind}({str(target)!r})"
        finished = subprocess.run(
            [sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=False
        )
        assert finished.returncode == 0, finished.stdout + finished.stderr
        (result,) = target.iterdir()
        return result

    for name in ("sdist", "wheel", "wheel_of_sdist"):
        (place / name).mkdir()
    sdist = build("sdist", copy, place / "sdist")
    with tarfile.open(sdist) as archive:
        # Python 3.11.3 and older know no filters; the archive is our own.
        options: Any = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}
        archive.extractall(place / "unpacked", **options)
    (unpacked,) = (place / "unpacked").iterdir()
    return {
        "sdist": sdist,
        "wheel": build("wheel", copy, place / "wheel"),
        "wheel of sdist": build("wheel", unpacked, place / "wheel_of_sdist"),
    }


def contents(wheel: Path) -> set[str]:
    """The names of the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return {name for name in archive.namelist() if not name.endswith("/")}


@pytest.mark.parametrize("wheel", ["wheel", "wheel of sdist"])
def test_wheel_holds_every_module(built: dict[str, Path], wheel: str) -> None:
    """Each Python file of the three folders is installed, under tfcheck and nowhere else."""
    expected = {
        name
        for path in source_files()
        if path.suffix == ".py" and (name := installed_name(path)) is not None
    }
    assert {"tfcheck/__init__.py", "tfcheck/callbacks/__init__.py"} <= expected
    assert "tfcheck/scripts/__init__.py" in expected
    found = {name for name in contents(built[wheel]) if name.endswith(".py")}
    assert found == expected


@pytest.mark.parametrize("wheel", ["wheel", "wheel of sdist"])
def test_wheel_holds_what_is_not_python(built: dict[str, Path], wheel: str) -> None:
    """The type marker and every template are installed, and no stray file is."""
    expected = {
        name
        for path in source_files()
        if path.suffix != ".py"
        and not (ROOT / path).is_symlink()
        and (name := installed_name(path)) is not None
    }
    assert "tfcheck/py.typed" in expected
    found = {
        name
        for name in contents(built[wheel])
        if not name.endswith(".py") and ".dist-info/" not in name
    }
    assert found == expected


@pytest.mark.parametrize("wheel", ["wheel", "wheel of sdist"])
def test_wheel_installs_one_name(built: dict[str, Path], wheel: str) -> None:
    """Only `tfcheck` lands in site-packages: no `tests`, `callbacks` or `scripts`."""
    tops = {name.split("/")[0] for name in contents(built[wheel])}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"tfcheck"}


def test_wheel_metadata(built: dict[str, Path]) -> None:
    """The wheel has the package's version, its licence with the text, and the command."""
    information = f"tfcheck-{tfcheck.__version__}.dist-info"
    with zipfile.ZipFile(built["wheel"]) as archive:
        metadata = Parser().parsestr(archive.read(f"{information}/METADATA").decode())
        commands = ConfigParser()
        commands.read_string(archive.read(f"{information}/entry_points.txt").decode())
        assert archive.read(f"{information}/licenses/LICENSE") == (ROOT / "LICENSE").read_bytes()
    assert metadata["Version"] == tfcheck.__version__
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    assert dict(commands["console_scripts"]) == {"tfcheck": "tfcheck.scripts.cli:main"}
    assert dict(commands["pytest11"]) == {"tfcheck": "tfcheck.testing.pytest_plugin"}


def test_sdist_contents(built: dict[str, Path]) -> None:
    """The source distribution holds what is needed to build, and neither tests nor examples."""
    with tarfile.open(built["sdist"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"pyproject.toml", "README.md", "LICENSE", "CHANGELOG.md"} <= names
    assert {"callbacks/__init__.py", "scripts/__init__.py", "tfcheck/py.typed"} <= names
    assert not {name for name in names if name.startswith(("tests", "mlruns", ".ci"))}


def test_every_package_is_listed() -> None:
    """Every folder with Python files is in pyproject's list and mapping of packages."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]
    mapping = {
        str(PurePosixPath(name).parent).replace("/", "."): path.parent.as_posix()
        for path in source_files()
        if path.suffix == ".py" and (name := installed_name(path)) is not None
    }
    assert tool["setuptools"]["package-dir"] == mapping
    assert sorted(tool["setuptools"]["packages"]) == sorted(mapping)


@pytest.mark.parametrize("name", ["callbacks", "scripts"])
def test_links(name: str) -> None:
    """The links through which tools see the source exist, are links, and are relative."""
    link = ROOT / "tfcheck" / name
    assert link.is_symlink()
    assert link.readlink() == Path("..", name)
    assert link.resolve() == ROOT / name


def test_links_are_committed_as_links() -> None:
    """Git stores the links as links (mode 120000), not as copies of the folders."""
    staged = git("ls-files", "--stage", "tfcheck/callbacks", "tfcheck/scripts")
    if not staged:
        pytest.skip("this is not a git repository, or nothing is committed yet")
    assert [line.split()[0] for line in staged] == ["120000", "120000"]


def test_no_machine_paths() -> None:
    """No file names a folder that exists only on the machine it was written on."""
    assert MACHINE_PATH.search(b"file://" + b"/home" + b"/someone/mlruns")
    offenders = [
        path.as_posix()
        for path in source_files()
        if not (ROOT / path).is_symlink() and MACHINE_PATH.search((ROOT / path).read_bytes())
    ]
    assert offenders == []


def bare_imports(code: str) -> list[str]:
    """The imports of `callbacks` and `scripts` under their root folders' names."""
    found = []
    for node in ast.walk(ast.parse(code)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [node.module]
        found += [name for name in names if name.split(".")[0] in ("callbacks", "scripts")]
    return found


def test_bare_imports_are_seen() -> None:
    """The test below can fail: it finds each way of writing a bare import."""
    code = "import callbacks.gradient_check\ndef late():\n    from scripts import cli"
    assert bare_imports(code) == ["callbacks.gradient_check", "scripts"]
    assert bare_imports("from tfcheck import callbacks\nfrom . import scripts") == []


def test_no_bare_imports() -> None:
    """Nobody imports `callbacks` or `scripts` bare, which would load second copies of classes."""
    offenders = [
        path.as_posix()
        for path in source_files()
        if path.suffix == ".py" and bare_imports((ROOT / path).read_text(encoding="utf-8"))
    ]
    assert offenders == []


def test_the_example_store_is_never_ignored() -> None:
    """What .gitignore says of MLflow stores elsewhere does not reach into mlruns_example."""
    inside = [f"mlruns_example/{name}" for name in ("mlflow.db", "mlruns/0/meta.yaml", "build/a")]
    ignored = git("check-ignore", "--no-index", *inside, "mlruns/0/meta.yaml", "mlflow.db")
    if ignored is None:
        pytest.skip("this is not a git repository")
    assert ignored == ["mlruns/0/meta.yaml", "mlflow.db"]


@pytest.mark.parametrize("name", ["test-command", "demo-command"])
def test_readme_commands(name: str) -> None:
    """README.md holds the command as one line in a code block right after its marker."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(rf"^<!-- {name} -->\n```bash\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    assert blocks[0].count("\n") == 1
