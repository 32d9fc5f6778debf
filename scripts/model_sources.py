"""What `tfcheck audit` is given: a model in a file or made by a function, and a batch."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import re
import sys
import traceback
import warnings
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tfcheck.errors import ArgumentError, BatchError, ModelError, TfcheckError, rule

if TYPE_CHECKING:
    import keras
    import numpy as np

PARTS = ("x", "y", "sample_weight")
SAVED = (".keras", ".h5", ".hdf5")

_TO_SEE_ALL = "Run it again with --traceback to see where"
_CONVENTION = (
    "Name arrays x, y and sample_weight; the parts of several inputs x/0, x/1 (a list) or "
    "x/left, x/right (a dict), and likewise those of y and sample_weight."
)


class UserCodeError(TfcheckError, RuntimeError):
    """Code that tfcheck was asked to run raised an error."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Where the model comes from.

    Attributes:
        given: what the user wrote.
        file: a saved model; None for one made by a function.
        module: name of a module, or path of a Python file.
        function: name of a function, or of a model, in the module.
    """

    given: str
    file: Path | None = None
    module: str = ""
    function: str = ""


def model_source(given: str) -> ModelSource:
    """Understand MODEL, without loading anything.

    Raises:
        ModelError: if it is neither a file that is there nor `module:function`.
    """
    path = Path(given).expanduser()
    module, _, function = given.rpartition(":")
    if path.suffix in SAVED:
        if not path.is_file():
            raise ModelError(rule("A saved model must exist", "model", given, "Check its path"))
        return ModelSource(given, file=path)
    if not module or not function.isidentifier():
        raise ModelError(
            rule(
                "A model must be a .keras file, package.module:function or file.py:function",
                "model",
                given,
                "Write it in one of these ways",
            )
        )
    if module.endswith(".py") and not Path(module).expanduser().is_file():
        raise ModelError(rule("A Python file must exist", "file", module, "Check its path"))
    return ModelSource(given, module=module, function=function)


def read_batch(path: Path) -> dict[str, Any]:
    """Read the arrays of one batch from an npz file.

    Args:
        path: a file with arrays `x`, `y` and `sample_weight`, of which only `x` must be there.
            Where there are several inputs, `x/0`, `x/1` make a list and `x/left`, `x/right` a
            dict; likewise for `y` and `sample_weight`.

    Returns:
        The arguments of `tfcheck.batch.first_batch`.

    Raises:
        BatchError: if the file is not of this kind.
    """
    arrays = _arrays(path)
    unknown = [name for name in arrays if name.partition("/")[0] not in PARTS or name[-1:] == "/"]
    if unknown:
        raise BatchError(
            "A batch file must hold no other arrays than x, y and sample_weight. Received: "
            f"{', '.join(map(repr, unknown[:4]))} in {str(path)!r}. {_CONVENTION}"
        )
    batch = {part: _part(arrays, part, path) for part in PARTS}
    if batch["x"] is None:
        names = ", ".join(map(repr, arrays)) or "no array"
        raise BatchError(
            f"A batch file must hold the inputs x. Received: {names} in {str(path)!r}. "
            f"{_CONVENTION}"
        )
    return batch


def _arrays(path: Path) -> dict[str, np.ndarray]:
    import numpy as np

    if not path.is_file():
        raise BatchError(rule("A batch file must exist", "batch", str(path), "Check its path"))
    try:
        if not zipfile.is_zipfile(path):
            raise ValueError("not an npz file")
        # Without pickles: a batch from somewhere else must not run code.
        with np.load(path, allow_pickle=False) as content:
            return {name: content[name] for name in content.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise BatchError(
            f"A batch must be an npz file of plain arrays. Received: batch={str(path)!r} "
            f"({_first_line(error)}). Make it with numpy.savez(file, x=..., y=...)."
        ) from error


def _part(arrays: dict[str, np.ndarray], part: str, path: Path) -> Any:
    own = {
        name.removeprefix(f"{part}/"): array
        for name, array in arrays.items()
        if name.startswith(f"{part}/")
    }
    if part in arrays:
        if own:
            raise BatchError(
                f"A batch file must hold either {part} or parts of it. Received: {part!r} and "
                f"{', '.join(repr(f'{part}/{name}') for name in own)} in {str(path)!r}. "
                f"{_CONVENTION}"
            )
        return arrays[part]
    if not any(name.isdecimal() for name in own):
        return own or None
    expected = [str(place) for place in range(len(own))]
    if set(own) != set(expected):
        raise BatchError(
            f"Numbered parts must be {part}/0, {part}/1 and so on, without gaps. Received: "
            f"{', '.join(repr(f'{part}/{name}') for name in own)} in {str(path)!r}. {_CONVENTION}"
        )
    return [own[place] for place in expected]


def load_model(
    source: ModelSource, imports: Sequence[str], unsafe: bool, loss: str | None, seed: int
) -> keras.Model:
    """Load or make the model, which must be compiled or get a loss here.

    Args:
        source: where it comes from.
        imports: modules or Python files to import first, which register custom layers.
        unsafe: run Python code that is stored in the file.
        loss: name of the Keras loss for a model that is not compiled.
        seed: seeds the initial weights of a model made by a function.

    Raises:
        ModelError: if there is no compiled Keras model to be had.
        UserCodeError: if the user's code raises.
    """
    import keras

    sys.path.insert(0, str(Path.cwd()))
    for module in imports:
        _import(module, "--import")
    if source.file is not None:
        model = _from_file(source.file, unsafe)
    else:
        origin = _import(source.module, "the model's module")
        keras.utils.set_random_seed(seed)
        model = _from_module(origin, source)
    if not isinstance(model, keras.Model):
        raise ModelError(
            f"{source.given} must be a keras.Model or a function that returns one. Received: "
            f"{type(model).__name__}. Return the compiled model alone."
        )
    _require_loss(model, loss)
    return model


def _require_loss(model: keras.Model, loss: str | None) -> None:
    import keras

    if model.compiled:
        if loss is not None:
            raise ArgumentError(
                rule(
                    "--loss is for models that are not compiled",
                    "loss",
                    loss,
                    "Leave it out: the model has its own",
                )
            )
        return
    if loss is None:
        raise ModelError(
            "A model must be compiled before it is checked. Received: uncompiled model "
            f"{model.name!r}. Compile it before it is saved or returned, or name a Keras loss "
            "with --loss."
        )
    try:
        keras.losses.get(loss)
    except ValueError as error:
        raise ArgumentError(
            rule("--loss must name a Keras loss", "loss", loss, 'Try "mse"')
        ) from error
    model.compile(optimizer="sgd", loss=loss)


def _from_file(path: Path, unsafe: bool) -> Any:
    import keras

    try:
        with warnings.catch_warnings():
            # Of optimizers whose state does not matter here.
            warnings.filterwarnings("ignore", module=r"keras\.")
            return keras.saving.load_model(path, safe_mode=not unsafe)
    except Exception as error:
        reason, remedy = _why_not_loaded(error)
        raise ModelError(
            f"A saved model must be a file that Keras can load. Received: {str(path)!r} "
            f"({reason}). {remedy}."
        ) from error


def _why_not_loaded(error: Exception) -> tuple[str, str]:
    """The reason in few words, and what to do."""
    text = str(error)
    unknown = re.search(r"Could not locate (\w+) '([^']+)'", text)
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
    return f"{type(error).__name__}: {_first_line(error)}", _TO_SEE_ALL


def _from_module(module: ModuleType, source: ModelSource) -> Any:
    import keras

    if not hasattr(module, source.function):
        raise ModelError(
            rule(
                f"{source.module} must hold the function named behind the colon",
                "function",
                source.function,
                "Check its spelling",
            )
        )
    found = getattr(module, source.function)
    if isinstance(found, keras.Model) or not callable(found):
        return found
    try:
        inspect.signature(found).bind()
    except (TypeError, ValueError) as error:
        raise ModelError(
            f"{source.given} must be callable without arguments. Received: a function with "
            f"{_first_line(error)}. Write one that makes the model."
        ) from error
    with _user_code(source.given):
        return found()


def _import(name: str, role: str) -> ModuleType:
    """Import a module by its name, or a Python file by its path."""
    if not name.endswith(".py"):
        try:
            with _user_code(name):
                return importlib.import_module(name)
        except UserCodeError as error:
            missing = error.__cause__
            if isinstance(missing, ModuleNotFoundError) and _is_part(missing.name, name):
                raise ModelError(
                    f"A module must be importable from this folder. Received: {role} {name!r}. "
                    "Check its spelling, or run tfcheck where it can be found."
                ) from missing
            raise
    path = Path(name).expanduser().absolute()
    if not path.is_file():
        raise ModelError(rule("A Python file must exist", role, name, "Check its path"))
    sys.path.insert(0, str(path.parent))  # as `python path/to/file.py` does
    spec = importlib.util.spec_from_file_location(f"audited_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ModelError(rule("A Python file must be importable", role, name, "Check its path"))
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    with _user_code(name):
        spec.loader.exec_module(module)
    return module


def _is_part(missing: str | None, name: str) -> bool:
    return missing is not None and f"{name}.".startswith(f"{missing}.")


@contextmanager
def _user_code(what: str) -> Iterator[None]:
    """Turn what the user's code raises into one sentence."""
    try:
        yield
    except TfcheckError:
        raise
    # A script that ends with sys.exit() would end the audit as if nothing was wrong.
    except (Exception, SystemExit) as error:
        raise UserCodeError(
            f"{what} must run without an error. Received: {type(error).__name__}: "
            f"{_first_line(error)}{_place(error)}. {_TO_SEE_ALL}."
        ) from error


def _place(error: BaseException) -> str:
    """The innermost place of the error outside of installed packages."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    own = [f for f in frames if "site-packages" not in f.filename and f.filename[:1] != "<"]
    own = [f for f in own if Path(f.filename).parent != Path(importlib.__file__).parent]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else "no message").rstrip(".")
