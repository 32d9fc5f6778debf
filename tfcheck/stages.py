"""What of a check could not be carried out: said in the report, and never to its advantage."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import tensorflow as tf

from tfcheck.deadline import TimeIsUpError
from tfcheck.errors import TfcheckError, received, telling_line

_Result = TypeVar("_Result")


class Stages:
    """The stages of one check, beside the measurement itself.

    Attributes:
        notes: what was not carried out, and why, a sentence each.
        cut_short: what there was no time for.
        broken: whether one failed by a mistake in here, or one that may accuse was cut short, so
            that what it would have found is unknown.
    """

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.cut_short: list[str] = []
        self.broken = False

    def run(
        self, what: str, stage: Callable[[], _Result], otherwise: _Result, *, accuses: bool = True
    ) -> _Result:
        """Carry out a stage; note it where that is not possible.

        Args:
            what: what the stage does, as in "the search for the culprit".
            stage: does it.
            otherwise: its result where it cannot be done.
            accuses: whether it may find something wrong with what else would pass. Defaults to
                True.
        """
        try:
            return stage()
        except TimeIsUpError:
            self.cut_short.append(what)
            self.broken |= accuses
        except (TfcheckError, tf.errors.OpError) as error:
            reason = received(error) if isinstance(error, TfcheckError) else _first(error)
            self.notes.append(f"Left out: {what}, since this is not possible here ({reason}).")
        except Exception as error:  # noqa: BLE001 - reported as what it is
            self.broken = True
            self.notes.append(
                f"Left out: {what}, by a mistake in tfcheck ({type(error).__name__}: "
                f"{_first(error)}). What it would have found is unknown. Please report it."
            )
        return otherwise


def _first(error: Exception) -> str:
    return telling_line(str(error)).rstrip(".")
