"""Saved models, which may come from strangers: what they hold is looked at before it is loaded."""

from __future__ import annotations

import math
import re
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from tfcheck.errors import ModelError, first_line
from tfcheck.scripts.archives import TooLargeError, opened, require_size, size_in_words
from tfcheck.scripts.room import variables_bounded
from tfcheck.scripts.saved_training import compile_arguments, training_config

if TYPE_CHECKING:
    import keras

SAVED = (".keras", ".h5", ".hdf5")
TO_SEE_ALL = "Run it again with --traceback to see where"

_MOST_MEMBERS = 10_000
_LARGEST_TEXT = 100_000_000
"""Bytes of a configuration. Python takes some ten times as much to read it."""

_MEMORY_OF_TEMPORARIES = 2**26


def load_saved(path: Path, unsafe: bool, max_bytes: int) -> keras.Model:
    """Load a saved model, compiled if it was saved so.

    Args:
        path: the file, `.keras` or HDF5.
        unsafe: run Python code that is stored in the file.
        max_bytes: how much the file's contents, and the model's variables, may take.

    Raises:
        ModelError: if Keras cannot load it, or if it is too large. Nothing is loaded then.
    """
    try:
        require_room(path, max_bytes)
        with warnings.catch_warnings(), variables_bounded(max_bytes):
            # Of optimizers whose state does not matter here.
            warnings.filterwarnings("ignore", module=r"keras\.")
            return _load(path, unsafe)
    except TooLargeError as error:
        raise ModelError(
            f"A saved model must take at most {size_in_words(max_bytes)}. Received: "
            f"{str(path)!r} ({error}). Give a larger --max-bytes if you trust the file."
        ) from error
    except ModelError:
        raise
    except Exception as error:
        reason, remedy = _why_not_loaded(error)
        raise ModelError(
            f"A saved model must be a file that Keras can load. Received: {str(path)!r} "
            f"({reason}). {remedy}."
        ) from error


def require_room(path: Path, max_bytes: int) -> None:
    """Refuse a file whose contents would take more memory than the limit, or lie elsewhere.

    Raises:
        TooLargeError: for more bytes.
        ValueError: for weights in other files.
    """
    if path.suffix != ".keras":
        _require_weights(path, max_bytes)
        return
    with opened(path, max_bytes, _MOST_MEMBERS) as archive:
        for member in archive.infolist():
            suffix = Path(member.filename).suffix
            if suffix == ".json":
                require_size(member.file_size, _LARGEST_TEXT, member.filename)
            if suffix == ".h5":
                with (
                    archive.open(member) as packed,
                    tempfile.SpooledTemporaryFile(_MEMORY_OF_TEMPORARIES) as weights,
                ):
                    shutil.copyfileobj(packed, weights)
                    _require_weights(weights, max_bytes)
            if suffix == ".npz":
                raise ValueError("weights in an npz file, which Keras no longer writes")


def _require_weights(file: Path | IO[bytes], max_bytes: int) -> None:
    """Look through the datasets of an HDF5 file; one of a few bytes can declare any size."""
    import h5py

    sizes: list[int] = []

    # Both end the search by what they return: h5py loses what they raise.
    def elsewhere(_name: str, link: object) -> bool | None:
        return isinstance(link, h5py.ExternalLink) or None

    def stored_elsewhere(_name: str, found: object) -> bool | None:
        if not isinstance(found, h5py.Dataset):
            return None
        # h5py's own `nbytes` overflows.
        sizes.append(math.prod(map(int, found.shape or ())) * found.dtype.itemsize)
        return found.is_virtual or bool(found.external) or None

    with h5py.File(file, "r") as content:
        if content.visititems_links(elsewhere) or content.visititems(stored_elsewhere):
            raise ValueError("weights in another file")
    require_size(sum(sizes), max_bytes, "its weights")


def _load(path: Path, unsafe: bool) -> keras.Model:
    import keras

    with keras.saving.custom_object_scope(_by_bare_name()):
        if path.suffix == ".keras":
            return keras.saving.load_model(path, safe_mode=not unsafe)
        model = keras.saving.load_model(path, safe_mode=not unsafe, compile=False)
        if (config := training_config(path)) is not None:
            model.compile(**compile_arguments(config))
        return model


def _by_bare_name() -> dict[str, Any]:
    """What users have registered, by the name that it had in files before it was registered.

    Names that Keras uses itself mean Keras's own things.
    """
    import keras

    own = (keras.layers, keras.losses, keras.metrics, keras.models, keras.optimizers)
    bare = {
        name.rpartition(">")[2]: value for name, value in keras.saving.get_custom_objects().items()
    }
    return {k: v for k, v in bare.items() if not any(hasattr(module, k) for module in own)}


def _why_not_loaded(error: Exception) -> tuple[str, str]:
    """The reason in few words, and what to do."""
    text = str(error)
    unknown = re.search(r"(?:Could not locate|Unknown) (\w+):? '([^']+)'", text)
    if unknown is not None:
        remedy = (
            "Register it with keras.saving.register_keras_serializable, and name the module that "
            "does with --import"
        )
        return f"Keras does not know the {unknown[1]} {unknown[2]!r} in it", remedy
    if "safe_mode" in text:
        return (
            "Keras does not run the Python code in it, such as that of a lambda layer",
            "If you trust the file, give --unsafe",
        )
    return f"{type(error).__name__}: {first_line(error)}", TO_SEE_ALL
