"""Plain text: letters that an encoding does not have, in letters that every encoding has.

A log of a build, `LANG=C` and older Windows consoles have no ✓ and no ‖. A report stays readable
there: symbols become what one would type for them.
"""

from __future__ import annotations

import codecs
import os
import unicodedata

PLAIN = {
    "✓": "+",
    "✗": "x",
    "⊘": "#",
    "‖": "||",
    "ĝ": "g^",
    "θ": "theta",
    "ε": "epsilon",
    "σ": "sigma",
    "β": "beta",
    "φ": "phi",
    "π": "pi",
    "µ": "u",
    "×": "x",
    "·": "*",
    "¦": "|",
    "±": "+-",
    "−": "-",
    "–": "-",
    "—": "-",
    "─": "-",
    "≤": "<=",
    "≥": ">=",
    "→": "->",
    "▶": ">",
    "√": "sqrt",
    "′": "'",
    "‘": "'",
    "’": "'",
    "“": '"',
    "”": '"',
    "…": "...",
    "²": "^2",
    "ᵀ": "^T",
    "\N{REPLACEMENT CHARACTER}": "?",
}
"""What one types for a symbol. It may be longer, so it goes in before lines are laid out."""


def spelled(text: str, encoding: str) -> str:
    r"""A text in the letters that an encoding has.

    Args:
        text: any text.
        encoding: the name of an encoding; an unknown one counts as ASCII.

    Returns:
        The text with what the encoding lacks written in another way: symbols by `PLAIN`, accents
        left out, anything else as an escape such as `\u5c64`, which tells one name from another.

    Example:
        >>> spelled("✓ pass, ‖g‖ ≤ 1e-7, é, 層", "ascii")
        '+ pass, ||g|| <= 1e-7, e, \\u5c64'
    """
    if _has(text, encoding):
        return text
    return "".join(letter if _has(letter, encoding) else _typed(letter) for letter in text)


def _has(text: str, encoding: str) -> bool:
    try:
        codecs.encode(text, encoding)
    except (LookupError, UnicodeError):
        return text.isascii()
    return True


def _typed(letter: str) -> str:
    if letter in PLAIN:
        return PLAIN[letter]
    bare = unicodedata.normalize("NFKD", letter).encode("ascii", "ignore").decode()
    return bare or letter.encode("ascii", "backslashreplace").decode()


def wants_plain_text() -> bool:
    """Whether the user has asked for text without terminal codes (https://no-color.org)."""
    return bool(os.environ.get("NO_COLOR"))
