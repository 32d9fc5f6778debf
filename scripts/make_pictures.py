"""Make docs/pictures.png: what `report.plot` draws of a real check.

    python -m tfcheck.scripts.make_pictures

The model is the digit reader of `tfcheck demo`, with the bug that is planted there.
"""

from __future__ import annotations

import os
from pathlib import Path

# Before TensorFlow is imported: it reads this once.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import click

from tfcheck.check import check_gradients
from tfcheck.gradient_report import GradientReport
from tfcheck.scripts.demo_models import digit_reader, digits, forgetful_swish

DPI = 96


def wrong_report() -> GradientReport:
    """The report on a reader with a bug, after an epoch of training."""
    images, labels = digits()
    reader = digit_reader(forgetful_swish)
    reader.fit(images, labels, epochs=1, verbose=0)
    return check_gradients(reader, images[:32], labels[:32])


@click.command()
@click.option(
    "--file",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("docs", "pictures.png"),
    show_default=True,
    help="The picture to write.",
)
def main(file: Path) -> None:
    """Write the picture of the documentation."""
    report = wrong_report()
    worst = report.worst_first[0].path
    report.plot(worst).savefig(file, dpi=DPI, metadata={"Software": None})
    click.echo(f"Written: {file}")


if __name__ == "__main__":
    main()
