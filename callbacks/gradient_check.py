"""The Keras callback: gradient checks at chosen checkpoints of `fit`, and nothing in between."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from tfcheck.batch import Batch, first_batch
from tfcheck.callbacks.checkpoints import Checkpoints, TrainingState
from tfcheck.check import GradientChecker
from tfcheck.errors import GradientCheckFailed, ModelError, TfcheckError
from tfcheck.options import make_settings, require_choice, require_verbose
from tfcheck.preconditions import require_backend
from tfcheck.progress import progress_line
from tfcheck.report import GradientReport, ObjectiveSummary, VariableReport
from tfcheck.steps import LossFunction
from tfcheck.verdict import PRECISION, Thresholds, Verdict


class GradientCheckWarning(UserWarning):
    """A gradient check during training found a failure, or could not be carried out."""


class GradientCheck(keras.callbacks.Callback):
    """Checks backpropagation at chosen checkpoints of `model.fit`.

    At a checkpoint the live model's train step is checked on a debug batch, with the weights as
    they are then, and the report is logged. Nothing of the training changes: weights, optimizer,
    metrics and random states are as without the callback. Between checkpoints it does nothing.

    Args:
        x: inputs of the debug batch, in any form `fit` takes; a dataset gives its first batch.
        y: targets of the debug batch. Defaults to None.
        sample_weight: weights of its samples. Defaults to None.
        start: check before the first step. A model that `fit` builds is checked after its first
            step instead. Defaults to True.
        epochs: check after these epochs, counted from 1. Defaults to none.
        steps: check after these optimizer steps, counted from 1. Defaults to none.
        end: check when training ends. Defaults to False.
        when: `when(state) -> bool`, asked after every step and epoch; `state` has `step`, `epoch`,
            `logs` and `at_epoch_end`. Defaults to None.
        on_fail: on a failing gradient `"warn"`, `"stop"` training, or `"raise"`
            `tfcheck.GradientCheckFailed`. Defaults to `"warn"`.
        on_error: when a check cannot be carried out, `"warn"`, `"stop"` or `"raise"`. Defaults to
            `"warn"`; the report then has the verdict `"error"`.
        tracking: `"mlflow"` logs to the active MLflow run or one of its own; None logs nothing.
            Defaults to `"mlflow"`.
        run_id: the MLflow run to log to. Defaults to the active one.
        verbose: 1 (the default) shows the progress of a check that takes more than two seconds in
            a terminal or a notebook, and elsewhere writes a line to the standard error every 30
            seconds; 0, or `fit(verbose=0)`, shows nothing.
        loss_fn, phase, method, directions, epsilon, thresholds, expected_mismatch, seed, precision,
            memory_limit: as for `tfcheck.check_gradients`.

    Attributes:
        reports: the reports of this training so far, a tuple, oldest first.

    Raises (all from `tfcheck.errors`):
        ArgumentError: for an option that tfcheck does not know.
        BatchError: if the debug batch is not finite, empty or uneven.
        BackendError: if Keras runs on another backend than TensorFlow.

    Example:
        >>> callback = GradientCheck(x[:32], y[:32], epochs=(1, 5))  # doctest: +SKIP
        >>> model.fit(x, y, epochs=5, callbacks=[callback])  # doctest: +SKIP
        >>> [str(report.verdict) for report in callback.reports]  # doctest: +SKIP
        ['pass', 'pass', 'pass']
    """

    def __init__(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        start: bool = True,
        epochs: int | Iterable[int] = (),
        steps: int | Iterable[int] = (),
        end: bool = False,
        when: Callable[[TrainingState], bool] | None = None,
        on_fail: str = "warn",
        on_error: str = "warn",
        tracking: str | None = "mlflow",
        run_id: str | None = None,
        loss_fn: LossFunction | None = None,
        phase: str = "train",
        method: str = "directions",
        directions: int = 4,
        epsilon: float | str = "auto",
        thresholds: Thresholds = Thresholds(),  # noqa: B008 - frozen, and shown in help()
        expected_mismatch: Sequence[str] = (),
        seed: int = 0,
        precision: float = PRECISION,
        memory_limit: int | str = "auto",
        verbose: int = 1,
    ) -> None:
        super().__init__()
        require_backend()
        require_choice("on_fail", on_fail, ("warn", "stop", "raise"))
        require_choice("on_error", on_error, ("warn", "stop", "raise"))
        require_choice("tracking", tracking, ("mlflow", None))
        require_verbose(verbose)
        self.checkpoints = Checkpoints.chosen(start, epochs, steps, end, when)
        self.settings = make_settings(
            phase=phase,
            method=method,
            directions=directions,
            epsilon=epsilon,
            thresholds=thresholds,
            expected_mismatch=expected_mismatch,
            seed=seed,
            precision=precision,
            memory_limit=memory_limit,
        )
        self.on_fail = on_fail
        self.on_error = on_error
        self.tracking = tracking
        self.run_id = run_id
        self.loss_fn = loss_fn
        self.verbose = verbose
        self._batch: Batch = first_batch(x, y, sample_weight)
        self._logger: Any = None
        self._begin_afresh()

    def _begin_afresh(self) -> None:
        self._reports: list[GradientReport] = []
        self._checker: GradientChecker | None = None
        self._epoch = 0
        self._step = 0
        self._start_is_due = False
        self._last_batch = -1
        self._at_most = 0
        self._due: float = 0

    @property
    def reports(self) -> tuple[GradientReport, ...]:
        """The reports of this training so far, oldest first."""
        return tuple(self._reports)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin a training: forget the last one's reports, and check if asked to."""
        self._begin_afresh()
        self._step = self._iterations()
        self._await_step()
        if self.tracking == "mlflow":
            from tfcheck.tracking import MlflowTracking

            self._logger = self._logger or MlflowTracking(self.run_id)
            self._logger.start(self.settings)
        if self.checkpoints.start:
            if self.model.weights:
                self._check("start", may_wait=True)
            else:
                self._wait_for_weights()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Check after this step if it is a checkpoint."""
        # Batches are counted in Python: reading the optimizer's counter waits for the device.
        self._at_most += batch - self._last_batch
        self._last_batch = batch
        if self._at_most < self._due:
            return
        previous, self._step = self._step, self._iterations()
        self._await_step()
        if self._start_is_due:
            self._start_is_due = False
            self._check("start")
            return
        state = self._state(logs, at_epoch_end=False)
        self._check_if(lambda: self.checkpoints.after_step(state, previous), f"step {state.step}")

    def _await_step(self) -> None:
        """Note which optimizer step is the next to look at, and that no more than now are done."""
        self._at_most = self._step
        self._due = self.checkpoints.next_step(self._step)

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note how many epochs are finished, and that batches are counted anew."""
        self._epoch = epoch
        self._last_batch = -1

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Check after this epoch if it is a checkpoint."""
        self._epoch = epoch + 1
        state = self._state(logs, at_epoch_end=True)
        self._check_if(lambda: self.checkpoints.after_epoch(state), f"epoch {state.epoch}")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Check at the end if asked to, and close the log."""
        if self.checkpoints.end and not self._checked_now():
            self._check("end")
        if self._logger is not None:
            self._logger.close()

    def _checked_now(self) -> bool:
        return bool(self._reports) and self._reports[-1].step == self._iterations()

    def _iterations(self) -> int:
        optimizer = getattr(self.model, "optimizer", None)
        return 0 if optimizer is None else int(optimizer.iterations.numpy())

    def _state(self, logs: dict[str, Any] | None, at_epoch_end: bool) -> TrainingState:
        return TrainingState(self._iterations(), self._epoch, dict(logs or {}), at_epoch_end)

    def _check_if(self, ask: Callable[[], str | None], moment: str) -> None:
        """Check if this is a checkpoint; a `when` that raises is a check that could not be made."""
        try:
            name = ask()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, training goes on
            self._failed_to_check(error, moment)
            return
        if name is not None:
            self._check(name)

    def _failed_to_check(self, error: Exception, checkpoint: str) -> None:
        report = _error_report(error, self, self._iterations(), checkpoint)
        self._note(report)
        message = f"The gradient check at {checkpoint} could not be done: {report.error}"
        self._react(self.on_error, message, error)

    def _note(self, report: GradientReport) -> None:
        self._reports.append(report)
        if self._logger is not None:
            self._logger.log(self.reports)

    def _wait_for_weights(self) -> None:
        """Check after the first step, when `fit` has built all layers."""
        self._start_is_due = True
        self._due = 0

    def _check(self, checkpoint: str, may_wait: bool = False) -> None:
        step = self._step = self._iterations()
        try:
            if self._checker is None:
                self._checker = GradientChecker(
                    self.model, self.settings, self.loss_fn, once=self.checkpoints.at_most_one
                )
            title = f"gradient check at {checkpoint}"
            with progress_line(title=title, verbose=self._shown()) as progress:
                report = self._checker.check(
                    self._batch, step=step, checkpoint=checkpoint, progress=progress
                )
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, training goes on
            if may_wait and isinstance(error, ModelError):
                self._wait_for_weights()
            else:
                self._failed_to_check(error, checkpoint)
            return
        self._note(report)
        if report.verdict is Verdict.FAIL:
            failure = GradientCheckFailed(f"\n{report}", report)
            self._react(self.on_fail, _failure_message(report), failure)

    def _shown(self) -> int:
        """Whether progress is: `fit` may have been told to be silent."""
        return self.verbose if (self.params or {}).get("verbose") != 0 else 0

    def _react(self, action: str, message: str, error: Exception) -> None:
        if action == "raise":
            if self._logger is not None:
                self._logger.close("FAILED")
            raise error
        # Python would point at a line in here, and show the warning only once.
        warnings.warn_explicit(message, GradientCheckWarning, "tfcheck", self._step)
        if action == "stop":
            self.model.stop_training = True


def _failure_message(report: GradientReport) -> str:
    failing = [variable for variable in report.worst_first if variable.verdict is Verdict.FAIL]
    named = ", ".join(f"{variable.path} ({_how_wrong(variable)})" for variable in failing[:3])
    more = f" and {len(failing) - 3} more" if len(failing) > 3 else ""
    culprits = f" Culprit: {', '.join(report.culprits)}." if report.culprits else ""
    return (
        f"Gradient check at {report.checkpoint} (step {report.step}): the gradient is wrong for "
        f"{named}{more}.{culprits} print(callback.reports[-1]) shows all."
    )


def _how_wrong(variable: VariableReport) -> str:
    return "under XLA" if variable.reason == "compiled" else f"score {variable.score:.1e}"


def _error_report(
    error: Exception, callback: GradientCheck, step: int, checkpoint: str
) -> GradientReport:
    text = str(error) if isinstance(error, TfcheckError) else _last_lines(error)
    return GradientReport(
        verdict=Verdict.ERROR,
        score=float("nan"),
        layers=(),
        culprits=(),
        notes=(),
        objective=ObjectiveSummary(
            "train_step" if callback.loss_fn is None else "loss_fn", callback.settings.phase
        ),
        settings=callback.settings,
        step=step,
        checkpoint=checkpoint,
        error=text,
        model=callback.model.name,
    )


def _last_lines(error: Exception) -> str:
    place = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (in {place.name})"
