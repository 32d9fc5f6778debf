"""What a report is set on: so many letters wide, in the letters that there are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.box import SIMPLE, Box
from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from tfcheck.rendering import words
from tfcheck.rendering.letters import spelled

NARROW = 60
"""Below this many characters, what stands side by side elsewhere stands one below the other."""

_TYPED_RULES = Box("    \n    \n -- \n    \n    \n -- \n    \n    ", ascii=True)
"""As rich's `SIMPLE`. Its own box in ASCII has lines around everything."""

STYLES = {
    "fail": "bold red",
    "error": "bold red",
    "suspect": "bold yellow",
    "inconclusive": "cyan",
    "declared": "magenta",
    "pass": "green",
}


@dataclass(frozen=True, slots=True)
class Page:
    """A page of text.

    Attributes:
        width: characters a line.
        encoding: the encoding whose letters there are.
    """

    width: int
    encoding: str = "utf-8"

    @property
    def narrow(self) -> bool:
        """Whether there is no room for columns."""
        return self.width < NARROW

    @property
    def rules(self) -> Box:
        """The lines of tables."""
        return SIMPLE if self.encoding.startswith("utf") else _TYPED_RULES

    def spelled(self, content: str) -> str:
        """Text as it can be shown: control characters are, and missing letters are spelled."""
        return spelled(words.printable(content), self.encoding)

    def text(self, content: str, style: str = "") -> Text:
        """Text that is taken as it is: brackets are no markup."""
        return Text(self.spelled(content), style)

    def symbol(self, verdict: str, said: str) -> Text:
        """The symbol of a verdict, and what is said of it, in its colour."""
        return self.text(f"{words.SYMBOLS[verdict]} {said}", STYLES[verdict])

    def shortened(self, path: str, width: int) -> str:
        """A path cut at its front to so many letters, as they are spelled here."""
        return words.shortened(self.spelled(path), width, self.spelled("…"))

    def folded(self, path: str, width: int) -> str:
        """A path broken into lines of so many letters, as they are spelled here."""
        return "\n".join(words.folded(self.spelled(path), width, self.spelled("…")))

    def listed(self, sentences: Sequence[str]) -> RenderableType:
        """One sentence as it is, several as a numbered list."""
        if len(sentences) == 1:
            return self.text(sentences[0])
        numbered = [(f"{place}.", self.text(said)) for place, said in enumerate(sentences, 1)]
        return self._beside(numbered, indent=0, gap=1)

    def labelled(self, lines: Sequence[tuple[str, RenderableType]]) -> RenderableType:
        """Labels with what belongs to them: beside them, or below where there is no room."""
        if not self.narrow:
            return self._beside(lines, indent=2, gap=2)
        table = Table.grid()
        for label, content in lines:
            table.add_row(self.text(label, "dim"))
            table.add_row(Padding(content, (0, 0, 0, 2)))
        return Padding(table, (0, 0, 0, 2))

    def _beside(
        self, lines: Sequence[tuple[str, RenderableType]], *, indent: int, gap: int
    ) -> RenderableType:
        table = Table.grid(padding=(0, gap, 0, 0))
        table.add_column(style="dim", no_wrap=True)
        table.add_column(overflow="fold")
        for label, content in lines:
            table.add_row(self.text(label), content)
        return Padding(table, (0, 0, 0, indent))
