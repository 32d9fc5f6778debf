"""The model of `tfcheck audit`: in a file, or made by a function."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from tfcheck.errors import ArgumentError, ModelError, TfcheckError, first_line, rule
from tfcheck.scripts.model_files import SAVED, TO_SEE_ALL, load_saved

if TYPE_CHECKING:
    import keras


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
                "A model must be a .keras or .h5 file, package.module:function or file.py:function",
                "model",
                given,
                "Write it in one of these ways",
            )
        )
    if module.endswith(".py") and not Path(module).expanduser().is_file():
        raise ModelError(rule("A Python file must exist", "file", module, "Check its path"))
    return ModelSource(given, module=module, function=function)


def load_model(
    source: ModelSource,
    imports: Sequence[str],
    unsafe: bool,
    loss: str | None,
    *,
    seed: int,
    max_bytes: int,
) -> keras.Model:
    """Load or make the model, which must be compiled or get a loss here.

    Args:
        source: where it comes from.
        imports: modules or Python files to import first, which register custom layers.
        unsafe: run Python code that is stored in the file.
        loss: name of the Keras loss for a model that is not compiled.
        seed: seeds the initial weights of a model made by a function.
        max_bytes: how much memory a saved model may take. What the user's own function makes is
            the user's choice.

    Raises:
        ModelError: if there is no compiled Keras model to be had.
        UserCodeError: if the user's code raises.
    """
    import keras

    sys.path.insert(0, str(Path.cwd()))
    for module in imports:
        _import(module, "--import")
    if source.file is not None:
        model = load_saved(source.file, unsafe, max_bytes)
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
            f"{first_line(error)}. Write one that makes the model."
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
            f"{first_line(error)}{_place(error)}. {TO_SEE_ALL}."
        ) from error


def _place(error: BaseException) -> str:
    """The innermost place of the error outside of installed packages."""
    frames = traceback.extract_tb(error.__traceback__)[1:]
    own = [f for f in frames if "site-packages" not in f.filename and f.filename[:1] != "<"]
    own = [f for f in own if Path(f.filename).parent != Path(importlib.__file__).parent]
    return f" ({Path(own[-1].filename).name}, line {own[-1].lineno})" if own else ""
