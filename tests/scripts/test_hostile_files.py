"""Batches and models from strangers: sizes are read first, and what is too large is never made."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

from tfcheck.errors import BatchError, ModelError
from tfcheck.scripts.batch_files import read_batch
from tfcheck.scripts.model_files import load_saved

MB = 1_000_000
LIMIT = 20 * MB

NUMBERS = np.arange(24, dtype="float32").reshape(8, 3)


@pytest.fixture(autouse=True)
def no_memory(monkeypatch: pytest.MonkeyPatch) -> Any:
    """What a test refuses is refused before it takes memory: this process hardly grows."""
    if sys.platform == "win32":
        yield
        return
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * (1 if sys.platform == "darwin" else 1024) < 500 * MB


# -- batches -------------------------------------------------------------------------------------


def npy(
    shape: Any = (8, 3), descr: Any = "<f4", data: bytes = b"", version: bytes = b"\1\0"
) -> bytes:
    """An npy file with any header."""
    header = repr({"descr": descr, "fortran_order": False, "shape": shape}).encode() + b"\n"
    length = struct.pack("<H" if version == b"\1\0" else "<I", len(header))
    return b"\x93NUMPY" + version + length + header + data


def packed(method: int = zipfile.ZIP_STORED, /, **members: bytes) -> bytes:
    """A zip file of these members."""
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(f"{name}.npy", content)
    return output.getvalue()


def plain() -> bytes:
    """A batch file as NumPy writes it."""
    output = io.BytesIO()
    np.savez(output, x=NUMBERS)
    return output.getvalue()


def twice() -> bytes:
    """A zip file with two members of one name."""
    output = io.BytesIO()
    with zipfile.ZipFile(output, "w") as archive:
        archive.writestr("x.npy", npy(data=NUMBERS.tobytes()))
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("x.npy", npy(data=NUMBERS.tobytes()))
    return output.getvalue()


def lying(content: bytes, wrong: int) -> bytes:
    """A zip file whose directory declares another size of its first member than it has."""
    place = content.rindex(b"PK\1\2") + 24
    return content[:place] + struct.pack("<I", wrong) + content[place + 4 :]


def encrypted(content: bytes) -> bytes:
    """A zip file that says its first member is encrypted."""
    place = content.rindex(b"PK\1\2") + 8
    return content[:place] + b"\1" + content[place + 1 :]


BOMB = bytes(30 * MB)
TOO_LARGE = f"must take at most {LIMIT // MB} MB of memory"
NOT_PLAIN = "must be an npz file of plain arrays"
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "a huge declared shape": (lambda: packed(x=npy((10**12,))), "declares 4000000000000 bytes"),
    "an overflowing shape": (lambda: packed(x=npy((2**40, 2**40))), "and holds 0"),
    "a negative shape": (lambda: packed(x=npy((-8, -3), data=NUMBERS.tobytes())), NOT_PLAIN),
    "a shape of words": (lambda: packed(x=npy(("a",))), NOT_PLAIN),
    "a huge item": (lambda: packed(x=npy((), "<U500000000")), "declares 2000000000 bytes"),
    "items of nothing": (lambda: packed(x=npy((10**15,), "<U0")), "of dtype <U0"),
    "objects": (lambda: packed(x=npy((2,), "|O", b"cos\nsystem\n")), "of dtype object"),
    "fields": (lambda: packed(x=npy((1,), [("a", "<f4")], b"1234")), "of dtype"),
    "another version": (lambda: packed(x=npy(version=b"\3\0")), "version (3, 0)"),
    "a header without end": (lambda: packed(x=npy((1,) * 9000)), NOT_PLAIN),
    "too many axes": (lambda: packed(x=npy((1,) * 200, data=b"1234")), NOT_PLAIN),
    "truncated data": (lambda: packed(x=npy(data=NUMBERS.tobytes()[:50])), "and holds 50"),
    "more than it declares": (lambda: packed(x=npy(data=bytes(4 * MB))), "and holds 4000000"),
    "a truncated file": (lambda: plain()[:-30], NOT_PLAIN),
    "damaged data": (lambda: plain().replace(NUMBERS.tobytes(), bytes(96)), NOT_PLAIN),
    "no array": (lambda: packed(x=b"hello"), NOT_PLAIN),
    "a zip bomb": (lambda: packed(zipfile.ZIP_DEFLATED, x=npy((8,), data=BOMB)), TOO_LARGE),
    "many small bombs": (
        lambda: packed(zipfile.ZIP_DEFLATED, **{f"x/{i}": BOMB[: 3 * MB] for i in range(9)}),
        TOO_LARGE,
    ),
    "a bomb of another kind": (lambda: packed(zipfile.ZIP_BZIP2, x=BOMB[:MB]), "nor deflated"),
    "a bomb that lies": (
        lambda: lying(packed(zipfile.ZIP_DEFLATED, x=npy((8, 3), data=BOMB)), 176),
        NOT_PLAIN,
    ),
    "a large file": (lambda: plain() + bytes(LIMIT), TOO_LARGE),
    "thousands of members": (
        lambda: packed(zipfile.ZIP_STORED, **dict.fromkeys(map(str, range(1500)), b"")),
        "1,000 m",
    ),
    "one name twice": (twice, "two members of one name"),
    "a secret": (lambda: encrypted(plain()), NOT_PLAIN),
    "an endless name": (
        lambda: packed(zipfile.ZIP_STORED, **{"n" * 60_000: npy(data=NUMBERS.tobytes())}),
        "no other",
    ),
    "nothing": (lambda: b"", NOT_PLAIN),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_batches(tmp_path: Path, name: str) -> None:
    """They are refused in a short sentence, at once, and without the memory they ask for."""
    make, said = HOSTILE[name]
    file = tmp_path / "batch.npz"
    file.write_bytes(make())
    with pytest.raises(BatchError) as caught:
        read_batch(file, LIMIT)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 700
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "array",
    [
        NUMBERS,
        NUMBERS.astype("float16"),
        np.asfortranarray(NUMBERS),
        np.array(3.0),
        np.array(["a", "long text"]),
        np.array([b"bytes"]),
        np.zeros((0, 3)),
        np.ones(5, bool),
        NUMBERS.astype(">i8"),
    ],
)
def test_plain_batches(tmp_path: Path, array: np.ndarray) -> None:
    """What NumPy writes is read as it is, packed or not."""
    for save in (np.savez, np.savez_compressed):
        file = tmp_path / f"{save.__name__}.npz"
        parts: dict[str, Any] = {"y/0": array, "y/1": array}
        save(file, x=array, **parts)
        batch = read_batch(file, LIMIT)
        np.testing.assert_array_equal(batch["x"], array)
        assert batch["x"].dtype == array.dtype
        assert len(batch["y"]) == 2


def test_the_limit_is_the_users(tmp_path: Path) -> None:
    """A batch above the limit is read when the limit is raised, as the message says."""
    file = tmp_path / "batch.npz"
    np.savez_compressed(file, x=np.zeros((1000, 300), "float32"))
    with pytest.raises(BatchError, match=r"1\.2 MB.*--max-bytes"):
        read_batch(file, MB)
    assert read_batch(file, 2 * MB)["x"].shape == (1000, 300)


# -- models --------------------------------------------------------------------------------------


def network(units: int = 1) -> keras.Model:
    """A compiled model."""
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(units, name="only")])
    model.compile("adam", "mse")
    return model


def members_of(file: Path) -> dict[str, bytes]:
    """What is in a `.keras` file."""
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(file: Path, members: dict[str, bytes]) -> Path:
    """Put these members into a `.keras` file, in place of all that was there."""
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file


def rewritten(file: Path, change: Callable[[str], str]) -> Path:
    """A `.keras` file with another configuration, and the weights it had."""
    members = members_of(file)
    return pack(file, members | {"config.json": change(members["config.json"].decode()).encode()})


def many_units(file: Path) -> Path:
    """A model that asks for many units."""
    network().save(file)
    if file.suffix == ".keras":
        return rewritten(file, lambda config: config.replace('"units": 1,', '"units": 300000000,'))
    with h5py.File(file, "a") as content:
        config = content.attrs["model_config"].replace('"units": 1,', '"units": 300000000,')
        content.attrs["model_config"] = config
    return file


def large_dataset(file: Path) -> Path:
    """Weights that declare far more numbers than are stored."""
    network().save(file)
    if file.suffix == ".keras":
        inner = file.with_name("inner.h5")
        members = members_of(file)
        inner.write_bytes(members["model.weights.h5"])
        add_large_dataset(inner)
        return pack(file, members | {"model.weights.h5": inner.read_bytes()})
    add_large_dataset(file)
    return file


def add_large_dataset(file: Path) -> None:
    """Add a dataset of ten billion numbers, none of them stored."""
    with h5py.File(file, "a") as content:
        content.create_dataset("more", (10**10,), "float32", chunks=(1000,), compression="gzip")


def elsewhere(file: Path) -> Path:
    """Weights in another file."""
    network().save(file)
    with h5py.File(file, "a") as content:
        content["more"] = h5py.ExternalLink("/etc/passwd", "/")
    return file


def raw_file_elsewhere(file: Path) -> Path:
    """Weights in any file of the machine."""
    network().save(file)
    with h5py.File(file, "a") as content:
        content.create_dataset("more", (4,), "uint8", external=[("/etc/passwd", 0, 4)])
    return file


def zip_bomb(file: Path) -> Path:
    """A configuration of blanks."""
    network().save(file)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("assets/vocabulary.txt", BOMB)
    return file


def deep(file: Path) -> Path:
    """A configuration nested too deeply to be read."""
    network().save(file)
    return rewritten(file, lambda _config: "[" * 100_000 + "]" * 100_000)


MODELS: list[tuple[Callable[[Path], Path], str, str]] = [
    (many_units, ".keras", "the variables it declares, 3.6 GB"),
    (many_units, ".h5", "the variables it declares, 3.6 GB"),
    (large_dataset, ".keras", "its weights, 40 GB"),
    (large_dataset, ".h5", "its weights, 40 GB"),
    (elsewhere, ".h5", "weights in another file"),
    (raw_file_elsewhere, ".h5", "weights in another file"),
    (zip_bomb, ".keras", "unpacked, 30 MB"),
    (deep, ".keras", "that Keras can load"),
]


@pytest.mark.parametrize(
    ("make", "suffix", "said"), MODELS, ids=[f"{m.__name__}{suffix}" for m, suffix, _ in MODELS]
)
def test_hostile_models(
    tmp_path: Path, make: Callable[[Path], Path], suffix: str, said: str
) -> None:
    """They are refused in a short sentence, and their memory is never taken."""
    with pytest.raises(ModelError) as caught:
        load_saved(make(tmp_path / f"model{suffix}"), False, LIMIT)
    assert said in str(caught.value)
    assert len(str(caught.value)) < 500


def test_optimizers_count(tmp_path: Path) -> None:
    """What an optimizer keeps of every weight counts, too: here the weights alone would do."""
    network().save(tmp_path / "model.keras")
    file = rewritten(
        tmp_path / "model.keras", lambda config: config.replace('"units": 1,', '"units": 1000000,')
    )
    with pytest.raises(ModelError, match=r"the variables it declares, 2\d MB.*--max-bytes"):
        load_saved(file, False, LIMIT)


def test_the_limit_of_models_is_the_users(tmp_path: Path) -> None:
    """A model above the limit is loaded when the limit is raised, as the message says."""
    model = network(200_000)
    model.optimizer.build(model.trainable_variables)
    model.save(file := tmp_path / "model.keras")
    with pytest.raises(ModelError, match=r"\(the file itself, 9\.\d+ MB\).*--max-bytes"):
        load_saved(file, False, 9 * MB)
    np.testing.assert_array_equal(load_saved(file, False, LIMIT).weights[0], model.weights[0])


def test_variables_are_made_as_ever_afterwards(tmp_path: Path) -> None:
    """Looking at what variables take leaves no trace in Keras, whether or not a model loads."""
    made = keras.Variable.__init__
    network().save(tmp_path / "model.keras")
    assert load_saved(tmp_path / "model.keras", False, LIMIT).compiled
    with pytest.raises(ModelError):
        load_saved(many_units(tmp_path / "model.keras"), False, LIMIT)
    assert keras.Variable.__init__ is made
