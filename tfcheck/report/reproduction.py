"""A unit test of a culprit: a file for pytest, and one with what the culprit was given."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from tfcheck.errors import ReproductionError, rule

MARK = "Written by tfcheck"
"""What stands in every test, so that no file of the user's is overwritten."""

PATHS = "# (where modules are)\n"
"""The line of a test's source that stands for the folders to import from."""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A test that fails as long as a culprit is wrong, and passes when it is mended.

    Attributes:
        culprit: the culprit's path.
        name: a name for it, as in `test_gradient_of_<name>.py` and `<name>_inputs.npz`.
        source: the test, with the line `PATHS` in it.
        arrays: the content of the npz file.
        folders: where the modules are that it imports, but for installed ones.
    """

    culprit: str
    name: str
    source: str
    arrays: bytes
    folders: tuple[str, ...] = ()

    @property
    def test_file(self) -> str:
        """The name of the test's file."""
        return f"test_gradient_of_{self.name}.py"

    @property
    def inputs_file(self) -> str:
        """The name of the npz file."""
        return f"{self.name}_inputs.npz"

    @property
    def size(self) -> int:
        """The bytes that the two files take."""
        return len(self.source.encode()) + len(self.arrays)

    def save(self, folder: str | Path) -> Path:
        """Write both files into a folder, which is made if it is not there.

        Modules that are not installed are found from there: the test names the way to them,
        relative to its own folder.

        Returns:
            The path of the test.

        Raises:
            ReproductionError: if the folder cannot be written to, or has a file of the test's name
                that is none of tfcheck's.
        """
        test = Path(folder) / self.test_file
        try:
            test.parent.mkdir(parents=True, exist_ok=True)
            if test.exists() and MARK not in test.read_text(encoding="utf-8"):
                raise ReproductionError(
                    rule(
                        "A test overwrites no other file",
                        "file",
                        str(test),
                        "Name another folder, or move the file away",
                    )
                )
            test.with_name(self.inputs_file).write_bytes(self.arrays)
            test.write_text(self.test(test.parent), encoding="utf-8")
        except OSError as error:
            raise ReproductionError(
                rule(
                    "A test must be written to a folder",
                    "folder",
                    f"{folder} ({error.strerror or error})",
                    "Name another one",
                )
            ) from error
        return test

    def test(self, folder: Path | None = None) -> str:
        """The source of the test.

        Args:
            folder: where it is going to be. Defaults to None, for anywhere: then its modules must
                be found without it.
        """
        places = [_relative(place, folder) for place in self.folders] if folder else []
        lines = "".join(f"sys.path.insert(0, {place})\n" for place in places)
        return self.source.replace(PATHS, lines)


def _relative(place: str, folder: Path) -> str:
    """A folder as an expression, seen from another."""
    try:
        way = Path(os.path.relpath(place, folder.resolve())).as_posix()
    except ValueError:  # on another drive
        return repr(place)
    return "str(HERE)" if way == "." else f"str(HERE / {json.dumps(way)})"


class Reproducible(Protocol):
    """A culprit that a unit test may be made of, when it is first asked for."""

    @property
    def culprit(self) -> str:
        """Its path."""

    @property
    def refusal(self) -> str:
        """Why no test of its own can be made of it; `""` where that is not known."""

    @property
    def outcome(self) -> Reproduction | ReproductionError:
        """A test that fails; what speaks against one where there is none."""

    def save(self, folder: str | Path) -> Path:
        """Write the test into a folder, and return its path."""
