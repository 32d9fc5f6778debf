"""Where a class or a function is to be imported from, so that a file of its own can use it."""

from __future__ import annotations

import ast
import sys
import sysconfig
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tfcheck.errors import ReproductionError


@dataclass(frozen=True, slots=True)
class Importable:
    """Something that can be imported, and from where.

    Attributes:
        loaded: the name under which its module is loaded here.
        module: the name to import the module by elsewhere.
        name: what to import from there.
        folder: where the module is found; `""` where it is installed.
    """

    loaded: str
    module: str
    name: str
    folder: str

    @property
    def found(self) -> Any:
        """What is there.

        Raises:
            ReproductionError: if the module is not loaded, as in another process.
        """
        if self.loaded not in sys.modules:
            raise _refused(f"{self.name} of {self.loaded}, which is not loaded", "Import it first")
        return getattr(sys.modules[self.loaded], self.name)


def importable(module: str, name: str, thing: Any = None) -> Importable:
    """Where to import something from.

    Args:
        module: the name of the module that it says it is from.
        name: its name there.
        thing: what must be found there. Defaults to None, for anything.

    Raises:
        ReproductionError: if it cannot be imported elsewhere; why, as what was received.
    """
    loaded = sys.modules.get(module)
    there = getattr(loaded, name, None)
    if loaded is None or there is None or (thing is not None and there is not thing):
        raise _refused(
            f"{name}, which is not at the top of module {module}", "Define it there, by its name"
        )
    file = _file_of(loaded, name)
    parts = _name_of(loaded).split(".")
    path = file.parent if file.name == "__init__.py" else file.with_suffix("")
    if list(path.parts[-len(parts) :]) != parts:  # as where a file was loaded by its path
        parts = [path.name]
    if not all(part.isidentifier() for part in parts):
        raise _refused(f"{name} in {file.name}", "Give the file a name that Python can import")
    folder = path.parents[len(parts) - 1]
    return Importable(module, ".".join(parts), name, "" if _is_installed(folder) else str(folder))


def qualified(thing: Any) -> tuple[str, str]:
    """The module of a class or function and its name there.

    Raises:
        ReproductionError: if it has no name there.
    """
    name = str(getattr(thing, "__qualname__", getattr(thing, "__name__", type(thing).__name__)))
    module = str(getattr(thing, "__module__", ""))
    if name.endswith("<lambda>"):
        raise _refused(f"a lambda in {module}", "Give it a name at the top of a module")
    if "<locals>" in name:
        outer, _, own = name.rpartition(".<locals>.")
        raise _refused(
            f"{own}, which {outer.rpartition('.')[2]} makes", "Define it at the top of a module"
        )
    if not name.isidentifier():
        raise _refused(f"{name} in {module}", "Define it at the top of a module")
    return module, name


def _refused(what: str, remedy: str) -> ReproductionError:
    return ReproductionError(f"A test must import what it is of. Received: {what}. {remedy}.")


def _name_of(module: ModuleType) -> str:
    """The name that a module can be imported by, also where it is the script that runs."""
    spec = getattr(module, "__spec__", None)
    return str(spec.name if spec is not None else module.__name__)


def _file_of(module: ModuleType, name: str) -> Path:
    file = getattr(module, "__file__", None)
    if not file or not Path(file).is_file():
        raise _refused(f"{name}, which is in no file", "Move it from the notebook to a module")
    path = Path(file).absolute()
    if module.__name__ == "__main__" and not _is_guarded(path):
        raise _refused(
            f"{name} in {path.name}, which runs when it is imported",
            'Move it to a module of its own, or put what runs under if __name__ == "__main__":',
        )
    return path


def _is_guarded(file: Path) -> bool:
    """Whether a script runs only what stands under `if __name__ == "__main__":`."""
    body: Sequence[ast.stmt] = ast.parse(file.read_bytes()).body
    return any(
        isinstance(statement, ast.If) and "__name__" in ast.unparse(statement.test)
        for statement in body
    )


def _is_installed(folder: Path) -> bool:
    """Whether Python looks for modules in a folder wherever it is started."""
    paths = sysconfig.get_paths()
    return folder in {Path(paths[kind]) for kind in ("stdlib", "purelib", "platlib")}
