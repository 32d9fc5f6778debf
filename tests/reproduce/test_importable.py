"""Where code can be imported from: modules, files loaded by their paths, scripts and notebooks."""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import pytest

from tfcheck.errors import ReproductionError
from tfcheck.reproduce.importable import Importable, importable, qualified

CODE = """
class Layer:
    class Inner:
        pass

def make():
    class Local:
        pass
    return Local
"""
GUARD = 'if __name__ == "__main__":\n    print("training")\n'


@pytest.fixture
def loaded(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Loads a file under a name, and forgets it."""
    before = dict(sys.modules)

    def load(file: str, name: str, code: str = CODE) -> Any:
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code, encoding="utf-8")
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
        return module

    yield load
    sys.modules.clear()
    sys.modules.update(before)


def found(thing: Any) -> Importable:
    """Where something is."""
    return importable(*qualified(thing), thing)


def test_module_of_a_package(loaded: Callable[..., Any], tmp_path: Path) -> None:
    """The folder is the one that the package is in."""
    module = loaded("src/shop/layers.py", "shop.layers")
    place = found(module.Layer)
    assert place == Importable("shop.layers", "shop.layers", "Layer", str(tmp_path / "src"))
    assert place.found is module.Layer


def test_package_itself(loaded: Callable[..., Any], tmp_path: Path) -> None:
    """What stands in `__init__.py` is imported from the package."""
    module = loaded("src/shop/__init__.py", "shop")
    assert found(module.Layer) == Importable("shop", "shop", "Layer", str(tmp_path / "src"))


def test_file_by_its_path(loaded: Callable[..., Any], tmp_path: Path) -> None:
    """A file that was loaded under another name is imported by its own."""
    module = loaded("there/train.py", "audited_train")
    place = found(module.Layer)
    assert place == Importable("audited_train", "train", "Layer", str(tmp_path / "there"))


def test_installed() -> None:
    """What is installed is found from everywhere."""
    assert found(keras.layers.Dense).folder == ""


def test_script(
    loaded: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script that runs is imported by the name of its file, where that only defines things."""
    monkeypatch.setitem(sys.modules, "__main__", sys.modules["__main__"])
    script = loaded("train.py", "__main__", CODE + GUARD.replace("__main__", "__never__"))
    script.__spec__ = None  # as Python leaves it
    assert found(script.Layer) == Importable("__main__", "train", "Layer", str(tmp_path))
    (tmp_path / "train.py").write_text("model.fit()\n", encoding="utf-8")
    with pytest.raises(ReproductionError, match=r"Layer in train\.py, which runs when it is"):
        found(script.Layer)


def test_module_that_runs(loaded: Callable[..., Any], tmp_path: Path) -> None:
    """So is one that was started with `python -m`, by its own name."""
    module = loaded("src/shop/train.py", "shop.train", CODE + GUARD)
    sys.modules["__main__"] = module
    module.Layer.__module__ = module.__name__ = "__main__"
    assert found(module.Layer) == Importable(
        "__main__", "shop.train", "Layer", str(tmp_path / "src")
    )


REFUSED: dict[str, tuple[Callable[[Any], Any], str]] = {
    "local": (lambda module: module.make(), "Local, which make makes. Define it at the top"),
    "nested": (lambda module: module.Layer.Inner, "Layer.Inner in shop. Define it at the top"),
    "lambda": (lambda module: lambda: None, "Received: a lambda in "),
    "replaced": (
        lambda module: vars(module).pop("Layer"),
        "Layer, which is not at the top of module shop",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_imported(name: str, loaded: Callable[..., Any]) -> None:
    """What has no name at the top of a module is refused, with what to do."""
    make, said = REFUSED[name]
    with pytest.raises(ReproductionError, match=r"^A test must import what it is of\.") as raised:
        found(make(loaded("shop.py", "shop")))
    assert said in str(raised.value)


def test_names_that_cannot_be_imported(loaded: Callable[..., Any]) -> None:
    """A file whose name is no name for Python, and code that is in no file."""
    module = loaded("my-layers.py", "audited_my_layers")
    with pytest.raises(ReproductionError, match=r"Layer in my-layers\.py. Give the file a name"):
        found(module.Layer)
    notebook = types.ModuleType("notebook_of_mine")
    exec(CODE, vars(notebook))  # noqa: S102 - as a notebook does
    sys.modules[notebook.__name__] = notebook
    with pytest.raises(ReproductionError, match=r"Layer, which is in no file\. Move it"):
        found(notebook.Layer)
