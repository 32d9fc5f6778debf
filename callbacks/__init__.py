"""Keras callbacks: `GradientCheck` runs gradient checks during training.

Example:
    >>> from tfcheck.callbacks import GradientCheck
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfcheck.callbacks.gradient_check import GradientCheck

__all__ = ["GradientCheck"]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


# Hidden from type checkers, which would otherwise accept any misspelt name.
if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load the callback when it is first used: its module needs Keras."""
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from tfcheck.callbacks.gradient_check import GradientCheck

        return GradientCheck
