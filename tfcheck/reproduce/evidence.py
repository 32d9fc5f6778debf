"""What a culprit was given when it was found wrong: plain values, which keep no model alive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tfcheck.settings import Settings

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from tfcheck.reproduce.importable import Importable
    from tfcheck.reproduce.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Saved:
    """Stands for an array among a call's arguments, by its name."""

    name: str


@dataclass(frozen=True, eq=False)
class Given:
    """One call.

    Attributes:
        args: its positional arguments, with a `Saved` for every array.
        kwargs: its named ones.
        phase: `"train"` or `"inference"`.
        gradients: the gradients of the outputs; None where no tape gave any.
        arrays: the arrays.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    phase: str
    gradients: tuple[Saved, ...] | None
    arrays: Mapping[str, npt.NDArray[Any]]


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of a culprit.

    Attributes:
        culprit: its path.
        name: a name for it in files and functions.
        settings: the options of the check that found it.
        moment: when that was, in words; `""` outside training.
        is_loss: whether it is of a loss, which is given targets and predictions.
        refusal: why no test of its own can be made of it; `""` where that is not known.
        recipe: how the layer or the loss is made again.
        function: where a loss that is a function is.
        weights: the layer's weights, in its own order.
        calls: the calls of it.
    """

    culprit: str
    name: str
    settings: Settings
    moment: str = ""
    is_loss: bool = False
    refusal: str = ""
    recipe: Recipe | None = None
    function: Importable | None = None
    weights: tuple[npt.NDArray[Any], ...] = ()
    calls: tuple[Given, ...] = ()


@dataclass
class Shelf:
    """Arrays by name, as they are found among arguments.

    Attributes:
        arrays: the arrays so far.
    """

    arrays: dict[str, npt.NDArray[np.generic]] = field(default_factory=dict)

    def put(self, name: str, array: npt.NDArray[Any]) -> Saved:
        """Put an array on it, under this name or one like it."""
        chosen, number = name, 1
        while chosen in self.arrays:
            chosen, number = f"{name}_{number}", number + 1
        self.arrays[chosen] = array
        return Saved(chosen)


def filled(structure: Any, take: Callable[[str], Any]) -> Any:
    """Arguments with something in the place of every array.

    Args:
        structure: the arguments.
        take: gives it for the array's name.
    """
    if isinstance(structure, Saved):
        return take(structure.name)
    if isinstance(structure, dict):
        return {key: filled(value, take) for key, value in structure.items()}
    if isinstance(structure, list):
        return [filled(value, take) for value in structure]
    if isinstance(structure, tuple):
        return tuple(filled(value, take) for value in structure)
    return structure
