"""Make mlruns_example: real trainings of small models, some with a bug planted in them.

    python -m tfcheck.scripts.make_example_runs

The models learn from scikit-learn's handwritten digits. Each is trained with `GradientCheck`, and
each bug is one that people make. It takes two or three minutes on two CPU cores.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

# Before TensorFlow is imported: it reads this once.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import click
import keras

from tfcheck.scripts.demo_models import digits
from tfcheck.scripts.example_commits import commits
from tfcheck.scripts.example_readme import readme
from tfcheck.scripts.examples import Example, adversaries, deep_readers, of_commit, readers

BATCH_SIZE = 64
EPOCHS = 3
CHECKED = 32  # samples of the debug batch
COMMIT_TAG = "mlflow.source.git.commit"


class LossToMlflow(keras.callbacks.Callback):  # type: ignore[misc]
    """Loss and accuracy at the steps that the gradient checks use."""

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:  # noqa: ARG002
        """Log what Keras shows."""
        import mlflow

        mlflow.log_metrics(dict(logs or {}), step=int(self.model.optimizer.iterations))


def train(example: Example) -> None:
    """Train one example in an MLflow run of its own."""
    import mlflow

    from tfcheck.callbacks import GradientCheck

    pixels, labels = digits()
    x = pixels.reshape(-1, 8, 8, 1) if example.labelled else pixels
    y = labels if example.labelled else None
    debug = (x[:CHECKED], None if y is None else y[:CHECKED])
    keras.utils.set_random_seed(7)
    model = example.model()
    # Its store is moved when training has ended: everything must have arrived.
    check = GradientCheck(*debug, epochs=example.checked, close_timeout=60)
    mlflow.set_experiment(example.experiment)
    with (
        mlflow.start_run(run_name=example.name, description=example.note),
        warnings.catch_warnings(action="ignore"),  # of the failures that are planted
    ):
        if example.commit:
            mlflow.set_tag(COMMIT_TAG, example.commit)
        model.fit(
            x,
            y,
            batch_size=BATCH_SIZE,
            epochs=EPOCHS,
            verbose=0,
            callbacks=[check, LossToMlflow()],
        )


def examples(code: Path) -> Iterator[Example]:
    """All examples, in the order in which they are trained; `tfcheck ui` opens the last.

    Args:
        code: an empty folder for the code that is committed.
    """
    yield from adversaries()
    yield from deep_readers()
    yield from readers()
    yield from map(of_commit, commits(code))


def shrink_pictures(store: Path) -> None:
    """Give every picture a palette: a third of the size for a repository, and no visible loss."""
    import PIL.Image

    for path in store.rglob("*.png"):
        with PIL.Image.open(path) as picture:
            few = picture.convert("RGB").quantize(96, method=PIL.Image.Quantize.MAXCOVERAGE)
        few.save(path, optimize=True)


def require_replaceable(destination: Path) -> None:
    """Refuse to replace a folder that is no store.

    Raises:
        ClickException: if something else is there.
    """
    if destination.exists() and not (
        any(destination.glob("*/meta.yaml")) or not any(destination.iterdir())
    ):
        raise click.ClickException(
            "The destination must be an MLflow file store, an empty folder or nothing yet. "
            f"Received: destination={str(destination)!r}. Name another one."
        )


@click.command()
@click.argument("destination", default="mlruns_example", type=click.Path(path_type=Path))
def main(destination: Path) -> None:
    """Train the examples and put their MLflow store into DESTINATION, replacing what is there."""
    import mlflow

    from tfcheck.scripts.relocation import make_relocatable

    require_replaceable(destination)
    if shutil.which("git") is None:
        raise click.ClickException("Two of the examples are commits, so git is needed. Install it.")
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    with tempfile.TemporaryDirectory() as folder:
        store = Path(folder) / destination.absolute().name
        code = Path(folder) / "code"
        code.mkdir()
        mlflow.set_tracking_uri(store.as_uri())
        trained = []
        for example in examples(code):
            click.echo(f"{example.experiment}, {example.name}: {example.note}")
            train(example)
            trained.append(example)
        shrink_pictures(store)
        make_relocatable(store, commits=[e.commit for e in trained if e.commit])
        (store / "README.md").write_text(readme(trained), encoding="utf-8")
        if destination.exists():
            shutil.rmtree(destination)
        shutil.copytree(store, destination)
    click.echo(f"Done. Look at it with: tfcheck ui {destination}")


if __name__ == "__main__":
    main()
