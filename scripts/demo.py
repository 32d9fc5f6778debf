"""`tfcheck demo`: two trainings on real data, one with a bug planted in it."""

from __future__ import annotations

import inspect
import shlex
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tfcheck.errors import TfcheckError
from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import Verdict
from tfcheck.progress import Progress
from tfcheck.rendering.progress import progress_line
from tfcheck.scripts.surroundings import (
    command_name,
    import_quietly,
    nearby,
    standard_output,
)

if TYPE_CHECKING:
    from rich.console import Console

EXPERIMENT = "tfcheck demo"
CLOSE_SECONDS = 60  # the log is looked at right after
EPOCHS = 3
UNEXPECTED = 1


class DemoStoreError(TfcheckError, RuntimeError):
    """The demo's MLflow store cannot be used."""


@dataclass(frozen=True)
class Training:
    """How one training went.

    Attributes:
        reports: its gradient checks, oldest first.
        accuracy: on digits it was not trained on.
        logged: whether MLflow has the verdict.
    """

    reports: tuple[GradientReport, ...]
    accuracy: float
    logged: bool

    def found(self, verdict: Verdict) -> bool:
        """Whether all checks have this verdict."""
        return bool(self.reports) and all(r.verdict is verdict for r in self.reports)


@click.command(short_help="Plant a bug in a training on real data, and find it.")
@click.option(
    "--store",
    type=click.Path(file_okay=False, path_type=Path),
    default="tfcheck-demo",
    show_default=True,
    help="Folder for the MLflow store. One that is there gets two more runs.",
)
@click.pass_context
def demo(ctx: click.Context, store: Path) -> None:
    """Train a digit reader twice, once with a planted bug, and find the bug.

    The data are scikit-learn's handwritten digits, so nothing is downloaded. Both trainings are
    checked before the first step and after every epoch, and logged to an MLflow store in a folder
    of their own. It takes half a minute.
    """
    console = standard_output()
    with progress_line("loading TensorFlow", title="", after=0) as progress:
        import_quietly()
        from tfcheck.scripts.demo_models import CULPRIT, forgetful_swish, swish

        experiment = _open_store(store)
        healthy = _train("healthy", swish, experiment, progress)
        planted = _train("planted bug", forgetful_swish, experiment, progress)

    _tell(console, healthy, "Healthy", "A digit reader; its swish activation is written by hand.")
    _tell(
        console,
        planted,
        "With a planted bug",
        f"The same, but the swish's backward pass says:  {_planted_line(forgetful_swish)}",
    )
    _conclude(console, healthy, planted, store)
    if not (
        healthy.found(Verdict.PASS)
        and planted.found(Verdict.FAIL)
        and all(wrong_layer(report) == CULPRIT for report in planted.reports)
        and healthy.logged
        and planted.logged
    ):
        click.echo("The demo did not go as it should: see above.", err=True)
        ctx.exit(UNEXPECTED)


def wrong_layer(report: GradientReport) -> str:
    """The layer to look at: the one found wrong alone, else the failing one nearest to the loss."""
    return ", ".join(report.culprits or report.failing_layers[-1:])


def _open_store(folder: Path) -> str:
    """Make or open the store, and return the id of the demo's experiment in it."""
    import mlflow

    path = folder.expanduser().absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(f"sqlite:///{(path / 'mlflow.db').as_posix()}")
        client = mlflow.MlflowClient()
        found = client.get_experiment_by_name(EXPERIMENT)
        if found is not None:
            return str(found.experiment_id)
        # Beside the database, or MLflow would put artifacts into the current folder.
        return str(client.create_experiment(EXPERIMENT, (path / "mlruns").as_uri()))
    except Exception as error:  # MLflow lets through what its database raises
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise DemoStoreError(
            f"The demo must be able to keep an MLflow store in a folder. Received: "
            f"store={str(folder)!r} ({said}). Name another folder with --store."
        ) from error


def _train(name: str, formula: Callable[..., Any], experiment: str, progress: Progress) -> Training:
    """Train once, in an MLflow run of its own."""
    import keras
    import mlflow

    from tfcheck.callbacks import GradientCheck
    from tfcheck.scripts.demo_models import digit_reader, digits

    pixels, labels = digits()
    model = digit_reader(formula)

    def log(_epoch: int, logs: dict[str, float]) -> None:
        mlflow.log_metrics(logs, step=int(model.optimizer.iterations))

    def tell(epoch: int, _logs: object) -> None:
        progress(f"{name}, epoch {epoch + 1} of {EPOCHS}", epoch, EPOCHS)

    each_epoch = keras.callbacks.LambdaCallback(on_epoch_begin=tell, on_epoch_end=log)
    check = GradientCheck(
        pixels[:32], labels[:32], epochs=range(1, EPOCHS + 1), close_timeout=CLOSE_SECONDS
    )
    progress(f"{name}, before training", 0, EPOCHS)
    with (
        mlflow.start_run(experiment_id=experiment, run_name=name) as run,
        warnings.catch_warnings(action="ignore"),  # of the failures that are planted
    ):
        history = model.fit(
            pixels,
            labels,
            validation_split=0.2,
            batch_size=64,
            epochs=EPOCHS,
            verbose=0,
            callbacks=[check, each_epoch],
        )
    tags = mlflow.MlflowClient().get_run(run.info.run_id).data.tags
    return Training(check.reports, history.history["val_accuracy"][-1], "gradcheck.verdict" in tags)


def _planted_line(formula: Callable[..., Any]) -> str:
    """The line of source code with the bug."""
    source = inspect.getsource(inspect.unwrap(formula))
    return next(line.strip() for line in source.splitlines() if "the bug" in line)


def _width(console: Console) -> int:
    from tfcheck.rendering.terminal import WIDEST

    return min(console.width, WIDEST)


def _tell(console: Console, training: Training, title: str, text: str) -> None:
    """Show the first check whole, and the others as one line each."""
    from rich.rule import Rule
    from rich.text import Text

    from tfcheck.rendering.console import print_history, print_report

    console.print()
    console.print(Rule(Text(title, "bold"), align="left", style="dim"), width=_width(console))
    console.print(Text(f"{text}\n"))
    print_report(training.reports[0], console)
    console.print()
    print_history(training.reports, console, indent=2)


def _conclude(console: Console, healthy: Training, planted: Training, store: Path) -> None:
    from rich.rule import Rule
    from rich.text import Text

    place = nearby(store)
    console.print()
    console.print(Rule(style="dim"), width=_width(console))
    sentence = Text.assemble(
        ("The wrong layer is ", "bold"),
        (wrong_layer(planted.reports[0]), "bold red"),
        (".", "bold"),
        f" No loss curve would tell: {planted.accuracy:.0%} accuracy with the bug, "
        f"{healthy.accuracy:.0%} without.",
    )
    console.print(sentence)
    console.print(Text(f"\nBoth trainings are in MLflow, in {place} (sqlite). Look at them with\n"))
    click.echo(f"  {command_name()} ui {shlex.quote(place)}\n")
