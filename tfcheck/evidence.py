"""What a culprit was given when it was found wrong: plain values, which keep no model alive."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tfcheck.errors import ReproductionError, first_line
from tfcheck.report import Settings

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from tfcheck.places import Place
    from tfcheck.recipe import Recipe
    from tfcheck.reproduction import Reproduction


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
    function: Place | None = None
    weights: tuple[npt.NDArray[Any], ...] = ()
    calls: tuple[Given, ...] = ()

    @cached_property
    def outcome(self) -> Reproduction | ReproductionError:
        """A test that fails; what speaks against one where there is none."""
        if self.refusal:
            return ReproductionError(self.refusal)
        from tfcheck.trial import reproduced

        try:
            return reproduced(self)
        except ReproductionError as error:
            return error
        except Exception as error:  # noqa: BLE001 - nothing that goes on depends on a test
            return ReproductionError(
                f"There is no test of {self.culprit}, by a mistake in tfcheck "
                f"({type(error).__name__}: {first_line(error)}). Please report it."
            )

    @property
    def is_spent(self) -> bool:
        """Whether a test was tried out in vain: then what another check has may do better."""
        return isinstance(vars(self).get("outcome"), ReproductionError)

    def save(self, folder: str | Path) -> Path:
        """Write the test into a folder, and return its path.

        Raises:
            ReproductionError: if there is none, or it cannot be written.
        """
        if isinstance(self.outcome, ReproductionError):
            raise self.outcome
        return self.outcome.save(folder)


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
