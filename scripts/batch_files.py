"""The batch of `tfcheck audit`: an npz file, which may come from a stranger."""

from __future__ import annotations

import math
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from tfcheck.errors import BatchError, first_line, rule, some
from tfcheck.scripts.archives import TooLargeError, opened, size_in_words

if TYPE_CHECKING:
    import numpy.typing as npt

PARTS = ("x", "y", "sample_weight")

_MOST_ARRAYS = 1000
_NUMBERS_AND_TEXTS = "biufcSU"
"""Kinds of dtypes that can become tensors. Objects would be pickles, which run code."""

_CONVENTION = (
    "Name arrays x, y and sample_weight; the parts of several inputs x/0, x/1 (a list) or "
    "x/left, x/right (a dict), and likewise those of y and sample_weight."
)


def read_batch(path: Path, max_bytes: int) -> dict[str, Any]:
    """Read the arrays of one batch from an npz file.

    Args:
        path: a file with arrays `x`, `y` and `sample_weight`, of which only `x` must be there.
            Where there are several inputs, `x/0`, `x/1` make a list and `x/left`, `x/right` a
            dict; likewise for `y` and `sample_weight`.
        max_bytes: how much memory the arrays may take.

    Returns:
        The arguments of `tfcheck.trace.batch.first_batch`.

    Raises:
        BatchError: if the file is not of this kind, or too large. Nothing of it is loaded then.
    """
    arrays = _arrays(path, max_bytes)
    unknown = [name for name in arrays if name.partition("/")[0] not in PARTS or name[-1:] == "/"]
    if unknown:
        raise BatchError(
            "A batch file must hold no other arrays than x, y and sample_weight. Received: "
            f"{_named(unknown)} in {str(path)!r}. {_CONVENTION}"
        )
    batch = {part: _part(arrays, part, path) for part in PARTS}
    if batch["x"] is None:
        raise BatchError(
            f"A batch file must hold the inputs x. Received: {_named(list(arrays)) or 'no array'} "
            f"in {str(path)!r}. {_CONVENTION}"
        )
    return batch


def _arrays(path: Path, max_bytes: int) -> dict[str, npt.NDArray[Any]]:
    if not path.is_file():
        raise BatchError(rule("A batch file must exist", "batch", str(path), "Check its path"))
    try:
        with opened(path, max_bytes, _MOST_ARRAYS) as archive:
            for member in archive.infolist():
                with archive.open(member) as content:
                    _require_plain(member, content)
            arrays = {_name(member): _read(archive, member) for member in archive.infolist()}
            if len(arrays) < len(archive.infolist()):
                raise ValueError("two arrays of one name")
            return arrays
    except TooLargeError as error:
        raise BatchError(
            f"A batch must take at most {size_in_words(max_bytes)} of memory. Received: "
            f"batch={str(path)!r} ({error}). Give a smaller batch, or a larger --max-bytes if you "
            "trust the file."
        ) from error
    except Exception as error:  # there is no end to the ways in which a file can be broken
        raise BatchError(
            f"A batch must be an npz file of plain arrays. Received: batch={str(path)!r} "
            f"({first_line(error)}). Make it with numpy.savez(file, x=..., y=...)."
        ) from error


def _require_plain(member: zipfile.ZipInfo, content: IO[bytes]) -> None:
    """Read an array's header alone, and refuse it unless as much data follows as it declares.

    `numpy.load` takes the memory that a header declares before it looks for the data.
    """
    shape, dtype = _header(content)
    if dtype.kind not in _NUMBERS_AND_TEXTS or not dtype.itemsize:
        raise ValueError(f"{_named([_name(member)])} is of dtype {str(dtype)[:60]}")
    declared = math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or declared != member.file_size - content.tell():
        raise ValueError(
            f"{_named([_name(member)])} declares {declared} bytes, and holds "
            f"{member.file_size - content.tell()}"
        )


def _header(content: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(content)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:  # the third is for names of fields, which no plain array has
        raise ValueError(f"version {version} of the npy format")
    shape, _, dtype = readers[version](content)
    return shape, dtype


def _read(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> npt.NDArray[Any]:
    with archive.open(member) as content:
        return np.asarray(np.lib.format.read_array(content, allow_pickle=False))


def _name(member: zipfile.ZipInfo) -> str:
    return member.filename.removesuffix(".npy")


def _named(names: Sequence[str]) -> str:
    """Names that somebody else has chosen, as short as they can be recognised."""
    return some([repr(name if len(name) <= 40 else f"{name[:40]}...") for name in names])


def _part(arrays: dict[str, npt.NDArray[Any]], part: str, path: Path) -> Any:
    own = {
        name.removeprefix(f"{part}/"): array
        for name, array in arrays.items()
        if name.startswith(f"{part}/")
    }
    given = _named([f"{part}/{name}" for name in own])
    if part in arrays:
        if own:
            raise BatchError(
                f"A batch file must hold either {part} or parts of it. Received: {part!r} and "
                f"{given} in {str(path)!r}. {_CONVENTION}"
            )
        return arrays[part]
    if not any(name.isdecimal() for name in own):
        return own or None
    expected = [str(place) for place in range(len(own))]
    if set(own) != set(expected):
        raise BatchError(
            f"Numbered parts must be {part}/0, {part}/1 and so on, without gaps. Received: "
            f"{given} in {str(path)!r}. {_CONVENTION}"
        )
    return [own[place] for place in expected]
