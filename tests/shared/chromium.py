"""Pages as Chromium shows them: what is in them, what its console says, how they are laid out."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

CHROMIUM = shutil.which("chromium")

DARK = "--blink-settings=preferredColorScheme=0"

_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--v=0", "--hide-scrollbars"),
)
_SAID = re.compile(r'CONSOLE[^\]]*\] "(.*?)", source: ', re.DOTALL)
_SECONDS = 120

# What a page of its own would not show of itself: a window is never narrower than 500 pixels, so
# the page is put into a frame, which may be.
_FRAME = '<!doctype html><iframe width="{width}" height="900" srcdoc="{page}"></iframe>'
_MEASURING = """
<script>
addEventListener("load", () => {
  const style = getComputedStyle(document.body);
  const verdicts = [...document.querySelectorAll("table .badge")].filter(e => e.offsetParent);
  const place = parent.document.createElement("script");
  place.type = "application/json";
  place.id = "measured";
  place.textContent = JSON.stringify({
    width: innerWidth,
    needed: document.documentElement.scrollWidth,
    paper: style.backgroundColor,
    ink: style.color,
    verdicts: verdicts.map(e => e.getBoundingClientRect().right),
  });
  parent.document.body.append(place);
});
</script>
"""


@dataclass(frozen=True, slots=True)
class Page:
    """A page after it was loaded.

    Attributes:
        dom: its elements, as HTML.
        console: what was written to the browser's console.
    """

    dom: str
    console: tuple[str, ...]


def visit(address: str, *options: str) -> Page:
    """Load a page in a browser of its own, and wait until it has come to rest.

    Args:
        address: where it is.
        options: further options of Chromium.
    """
    assert CHROMIUM is not None
    with TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True) as profile:
        finished = subprocess.run(
            [
                *(CHROMIUM, *_OPTIONS, f"--user-data-dir={profile}", "--window-size=1440,900"),
                *("--virtual-time-budget=60000", "--dump-dom", *options, address),
            ],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        )
    assert finished.returncode == 0, finished.stderr
    return Page(finished.stdout, tuple(_SAID.findall(finished.stderr)))


def measured(page: str, width: int, folder: Path, *options: str) -> tuple[Page, dict[str, Any]]:
    """Load a page of one file at a width, and measure what is seen.

    Args:
        page: its HTML.
        width: how many pixels wide.
        folder: where to put it.
        options: further options of Chromium.

    Returns:
        The page around it, and its width, the width it needs, the colours of its paper and ink,
        and the right edges of its tables' verdicts.
    """
    file = folder / f"page-{width}.html"
    framed = html.escape(page + _MEASURING, quote=True)
    file.write_text(_FRAME.format(width=width, page=framed), encoding="utf-8")
    loaded = visit(file.as_uri(), *options)
    found = re.search(r'<script type="application/json" id="measured">(.*?)</script>', loaded.dom)
    assert found is not None, loaded.console
    return loaded, json.loads(found[1])
