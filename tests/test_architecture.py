"""The layout is the architecture: who may import whom, and who may know which library."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter

import pytest
from floors import FLOORS, floor_of
from repository import ROOT

PACKAGE = ROOT / "tfcheck"

NUMBERS_ALONE = ("formats", "judge", "measure", "settings")
NO_TENSORFLOW = (
    *(*NUMBERS_ALONE, "pyproject", "report", "gradient_report", "runs"),
    *("rendering", "tracking", "dashboard"),
)
HOMES = {
    "tensorflow": set.union(*FLOORS) - set(NO_TENSORFLOW),
    "keras": set.union(*FLOORS) - set(NO_TENSORFLOW),
    "mlflow": {"tracking", "dashboard", "scripts", "internals"},
    "rich": {"rendering", "scripts"},
    "jinja2": {"rendering"},
    "matplotlib": {"rendering", "scripts", "gradient_report"},
    "pytest": {"testing"},
    "junitparser": {"scripts"},
}
"""Where a library may be imported."""


def sources() -> dict[str, ast.Module]:
    """The syntax tree of every module, by its dotted name below `tfcheck`."""
    found = {}
    for path in (*PACKAGE.rglob("*.py"), *(PACKAGE / "callbacks").rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text("utf-8"))
    for folder in ("callbacks", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            parts = path.relative_to(ROOT).with_suffix("").parts
            found[".".join(parts).removesuffix(".__init__")] = ast.parse(path.read_text("utf-8"))
    return found


def imported(tree: ast.Module) -> Iterator[str]:
    """All dotted names that a module imports: in functions and for type checkers, too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows(trees: Mapping[str, ast.Module]) -> dict[str, set[str]]:
    """For each module the modules of tfcheck that it imports."""
    found: dict[str, set[str]] = {}
    for module, tree in trees.items():
        names = (n.removeprefix("tfcheck.") for n in imported(tree) if n.startswith("tfcheck."))
        used = {name if name in trees else name.rpartition(".")[0] or "__init__" for name in names}
        # `import tfcheck.errors` also has the package itself, of which no more is used.
        found[module] = {name for name in used if name in trees} - {module}
    return found


def upward(found: Mapping[str, Iterable[str]]) -> list[str]:
    """The arrows that do not lead down, from one part of tfcheck to another."""
    wrong = []
    for module, used in found.items():
        part = module.partition(".")[0]
        others = [(name, name.partition(".")[0]) for name in used]
        wrong += [
            f"{module} -> {name}"
            for name, other in others
            if other != part and floor_of(other) >= floor_of(part)
        ]
    return sorted(wrong)


TREES = sources()


def test_every_part_has_its_floor() -> None:
    """Each module and package stands on one floor, and nothing stands there that is not."""
    parts = {module.partition(".")[0] for module in TREES}
    standing = [part for floor in FLOORS for part in floor]
    assert sorted(parts) == sorted(standing)


def test_imports_lead_down() -> None:
    """A package imports itself and lower floors only."""
    assert upward(arrows(TREES)) == []


def test_no_two_files_import_each_other() -> None:
    """There is no circle of imports, not even within a package."""
    try:
        TopologicalSorter(arrows(TREES)).prepare()
    except CycleError as error:
        pytest.fail(f"These files import each other: {' -> '.join(error.args[1])}")


def test_an_arrow_up_is_seen() -> None:
    """The tests above can fail: an arrow up and a circle are found, however they are written."""
    code = "def late():\n    from tfcheck.checker import Checker\nimport tfcheck.objective.point"
    trees = {**TREES, "measure.target": ast.parse(code)}
    found = upward(arrows(trees))
    assert found == ["measure.target -> checker", "measure.target -> objective.point"]
    with pytest.raises(CycleError):
        TopologicalSorter(arrows(trees)).prepare()


@pytest.mark.parametrize("library", HOMES)
def test_libraries_stay_in_their_rooms(library: str) -> None:
    """TensorFlow, MLflow and what draws are imported only where they are meant to be."""
    users = {
        module.partition(".")[0]
        for module, tree in TREES.items()
        if any(name.partition(".")[0] == library for name in imported(tree))
    }
    assert users - HOMES[library] == set()
    assert users, f"{library} has homes, but nobody lives there"


@pytest.mark.parametrize("package", NO_TENSORFLOW)
def test_numbers_need_no_tensorflow(package: str) -> None:
    """What measures, judges, reports and shows loads neither TensorFlow nor Keras."""
    modules = [f"tfcheck.{m}" for m in TREES if m.partition(".")[0] == package]
    code = f"""
import sys
sys.modules["tensorflow"] = sys.modules["keras"] = None  # importing them raises
for name in {modules!r}:
    __import__(name)
"""
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert finished.returncode == 0, finished.stderr


def test_packages_say_what_they_are() -> None:
    """The docstring of each package says what comes in, what goes out, and just what it imports."""
    packages = [m for m in TREES if (PACKAGE / m / "__init__.py").exists() and "." not in m]
    found = arrows(TREES)
    for name in set(packages) - {"__init__", "callbacks", "scripts"}:
        said = ast.get_docstring(TREES[name]) or ""
        assert all(word in said for word in ("In: ", "Out: ")), name
        may = set(re.findall(r"`(\w+)`", said.partition("May import: ")[2]))
        used = {
            other.partition(".")[0]
            for module, others in found.items()
            if module.partition(".")[0] == name
            for other in others
        }
        assert may == used - {name}, name


LONGEST = {"file": 350, "class": 250, "function": 40}
"""Lines, the docstring of a function not counted."""


def lengths(tree: ast.Module) -> Iterator[tuple[str, int, int]]:
    """Of a module and all in it: what it is, the line where it begins, how many lines it has."""
    yield "file", 1, max((node.end_lineno or 0 for node in tree.body), default=0)
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            yield "class", node.lineno, (node.end_lineno or 0) - node.lineno + 1
        elif isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) else node.body
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
            yield "function", node.lineno, lines


def too_long(code: str) -> list[str]:
    """What is longer than it should be, without a comment before it that says why."""
    lines = code.splitlines()
    return [
        f"{what} at line {line}: {length}"
        for what, line, length in lengths(ast.parse(code))
        if length > LONGEST[what]
        and "# Long: " not in "\n".join(lines[: 5 if what == "file" else line][-5:])
    ]


def test_nothing_is_long_without_a_reason() -> None:
    """Files, classes and functions stay short, or a comment `# Long: ...` before them says why."""
    found = {}
    for folder in ("tfcheck", "callbacks", "scripts"):
        for path in (ROOT / folder).rglob("*.py"):
            if wrong := too_long(path.read_text("utf-8")):
                found[path.relative_to(ROOT).as_posix()] = wrong
    assert found == {}


def test_what_is_long_is_seen() -> None:
    """The test above can fail, and a reason is heard."""
    long = "def f():\n" + "    x = 1\n" * 41
    assert too_long(long) == ["function at line 1: 41"]
    assert too_long(f"# Long: one case after the other.\n{long}") == []
