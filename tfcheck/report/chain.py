"""The layers of a step in the order in which they compute its loss."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Link:
    """One layer of the chain.

    Attributes:
        path: its path; `"loss"` or `"train_step"` for what is outside of all layers.
        corrupted: whether the gradient that it receives comes through a culprit.
    """

    path: str
    corrupted: bool = False
