"""The Keras callback: gradient checks at chosen checkpoints of `fit`, and nothing in between."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import keras

from tfcheck.callbacks.checkpoints import Checkpoints, Moment, TrainingState
from tfcheck.callbacks.course import Course
from tfcheck.callbacks.error_report import error_report
from tfcheck.callbacks.fingerprint import fingerprint
from tfcheck.callbacks.journal import Journal
from tfcheck.callbacks.missed import tell_what_cannot_come
from tfcheck.callbacks.naming import about, require_name, require_seconds
from tfcheck.callbacks.own_tracking import OwnTracking, require_tracking
from tfcheck.callbacks.step_count import StepCount
from tfcheck.callbacks.telling import GradientCheckWarning, finding, warn
from tfcheck.checker import GradientChecker
from tfcheck.errors import GradientCheckFailed, ModelError
from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import PRECISION, Thresholds, Verdict
from tfcheck.rendering.progress import progress_line
from tfcheck.settings import make_settings, require_choice, require_verbose
from tfcheck.trace.batch import Batch, first_batch
from tfcheck.trace.preconditions import require_backend
from tfcheck.trace.steps import LossFunction

if TYPE_CHECKING:
    from tfcheck.callbacks.journal import Log
    from tfcheck.tracking import Tracking

__all__ = ["GradientCheck", "GradientCheckWarning"]


# Long: a fifth of it tells what every option does, where `help()` and editors show it.
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
        steps: check after these steps, counted from 1: those of the model's optimizer, else of
            another optimizer that steps, else batches. Defaults to none.
        end: check when training ends. Defaults to False.
        when: `when(state) -> bool`, asked after every step and epoch; `state` has `step`, `epoch`,
            `logs` and `at_epoch_end`. Defaults to None.
        on_fail: on a failing gradient `"warn"`, `"stop"` training, or `"raise"`
            `tfcheck.GradientCheckFailed`. A suspect one warns and goes on, always. Defaults to
            `"warn"`.
        on_error: when a check cannot be carried out, `"warn"`, `"stop"` or `"raise"`. Defaults to
            `"warn"`; the report then has the verdict `"error"`.
        tracking: `"mlflow"` logs to the active MLflow run or one of its own; None logs nothing;
            an object with the methods of `tfcheck.tracking.Tracking` gets every report. Defaults
            to `"mlflow"`.
        run_id: the MLflow run to log to. Defaults to the active one.
        name: what these checks are called in the log, where a run may hold those of several
            callbacks: letters, digits, `_`, `-` and `.`. Defaults to `"gradcheck"` for the first
            in a training, and to what is checked for others.
        close_timeout: for how many seconds the end of training waits for what is still being sent
            to MLflow. Sending goes on after that. Defaults to 10.
        verbose: 1 (the default) shows the progress of a check that takes more than two seconds in
            a terminal or a notebook, and elsewhere writes a line to the standard error every 30
            seconds; 0, or `fit(verbose=0)`, shows nothing.
        loss_fn, phase, method, directions, epsilon, thresholds, expected_mismatch, seed, precision,
            dropout, memory_limit, time_limit: as for `tfcheck.check_gradients`.

    Attributes:
        reports: the reports of this training so far, a tuple, oldest first. Where one found a wrong
            layer, `reports[-1].reproduce("tests")` writes a unit test of it, which is in the log,
            too.

    Raises (all from `tfcheck.errors`):
        ArgumentError: for an option that tfcheck does not know.
        BatchError: if the debug batch is empty or uneven.
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
        tracking: Literal["mlflow"] | Tracking | None = "mlflow",
        run_id: str | None = None,
        name: str | None = None,
        close_timeout: float = 10.0,
        loss_fn: LossFunction | None = None,
        phase: str = "train",
        method: str = "directions",
        directions: int = 4,
        epsilon: float | str = "auto",
        thresholds: Thresholds = Thresholds(),  # noqa: B008 - frozen, and shown in help()
        expected_mismatch: Sequence[str] = (),
        seed: int = 0,
        precision: float = PRECISION,
        dropout: str = "off",
        memory_limit: int | str = "auto",
        time_limit: float | str | None = None,
        verbose: int = 1,
    ) -> None:
        super().__init__()
        require_backend()
        require_choice("on_fail", on_fail, ("warn", "stop", "raise"))
        require_choice("on_error", on_error, ("warn", "stop", "raise"))
        require_tracking(tracking)
        require_verbose(verbose)
        require_name(name)
        require_seconds("close_timeout", close_timeout)
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
            dropout=dropout,
            memory_limit=memory_limit,
            time_limit=time_limit,
        )
        self.on_fail = on_fail
        self.on_error = on_error
        self.tracking = tracking
        self.run_id = run_id
        self.name = name
        self.close_timeout = float(close_timeout)
        self.loss_fn = loss_fn
        self.verbose = verbose
        self._batch: Batch = first_batch(x, y, sample_weight)
        self.settings = replace(self.settings, batch_fingerprint=fingerprint(self._batch))
        self._log: Log | None = None
        # These begin anew with `on_train_begin`: nothing of a training outlives it.
        self._journal = Journal(name)
        self._course: Any = None
        self._checker: GradientChecker | None = None

    @property
    def reports(self) -> tuple[GradientReport, ...]:
        """The reports of this training so far, oldest first."""
        return self._journal.reports

    # -- what Keras calls ------------------------------------------------------------------

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Begin a training: forget the last one's reports, and check if asked to."""
        self._journal = Journal(self.name)
        self._checker = None
        again = self._course is not None and self._course.count.model is self.model
        count = StepCount(self.model, self._course.count.batches if again else 0)
        last_epoch = (self.params or {}).get("epochs") or math.inf
        self._course = Course(self.checkpoints, count, last_epoch)
        tell_what_cannot_come(self.checkpoints, last_epoch)
        if self.tracking is not None:
            self._log = self._log or self._make_log()
            self._log.start(self.settings, self.model.name)
            self._journal.log = self._log
        if self.checkpoints.start:
            if self.model.weights:
                self._check("start", may_wait=True)
            else:
                self._course.wait_for_weights()

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Check after this step if it is a checkpoint."""
        previous = self._course.end_batch(batch)
        if previous is None:
            return
        if self._course.start_is_due:
            self._course.start_is_due = False
            self._check("start")
            return
        state = self._course.state(logs, at_epoch_end=False)
        self._check_if(lambda: self.checkpoints.after_step(state, previous), f"step {state.step}")

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Note how many epochs are finished, and that batches are counted anew."""
        self._course.begin_epoch(epoch)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """Check after this epoch if it is a checkpoint."""
        self._course.epoch = epoch + 1
        if not self.checkpoints.may_be_after_epoch(self._course.epoch):
            return
        state = self._course.state(logs, at_epoch_end=True)
        self._check_if(lambda: self.checkpoints.after_epoch(state), f"epoch {state.epoch}")

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Check at the end if asked to, tell what never came, and close the log."""
        if self.checkpoints.end:
            self._check_once("end")
        self._course.tell_what_never_came()
        self._journal.close(last_step=self._course.count.steps())

    # -- checking --------------------------------------------------------------------------

    def _check_if(self, ask: Callable[[], Moment | None], moment: str) -> None:
        """Check if this is a checkpoint; a `when` that raises is a check that could not be made."""
        try:
            due = ask()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, training goes on
            self._course.when_was_true = True  # it has been told what is wrong with it
            self._failed_to_check(error, moment)
            return
        if due is not None:
            self._course.when_was_true |= due.asked
            self._check_once(due.name)

    def _check_once(self, checkpoint: str) -> None:
        """Check, unless this very step has been checked."""
        if not self.reports or self.reports[-1].step != self._course.count.steps():
            self._check(checkpoint)

    def _check(self, checkpoint: str, may_wait: bool = False) -> None:
        step = self._course.look()
        try:
            report = self._checked(step, checkpoint)
        except Exception as error:  # noqa: BLE001 - whatever goes wrong, training goes on
            if may_wait and isinstance(error, ModelError):
                self._course.wait_for_weights()
            else:
                self._failed_to_check(error, checkpoint)
            return
        except BaseException:
            # Interrupted: Keras will not call `on_train_end`.
            self._journal.close("KILLED")
            raise
        report = self._journal.note(report, self._course)
        if report.verdict is Verdict.FAIL:
            failure = GradientCheckFailed(f"\n{report}", report)
            self._react(self.on_fail, finding(report), failure)
        elif report.verdict is Verdict.SUSPECT:
            warn(finding(report))

    def _checked(self, step: int, checkpoint: str) -> GradientReport:
        if self._checker is None:
            self._checker = GradientChecker(
                self.model,
                self.settings,
                self.loss_fn,
                once=self.checkpoints.at_most_one,
                first_step=self._course.first_step,
            )
        # `fit` may have been told to be silent.
        shown = self.verbose if (self.params or {}).get("verbose") != 0 else 0
        with progress_line(title=f"gradient check at {checkpoint}", verbose=shown) as progress:
            return self._checker.check(
                self._batch, step=step, checkpoint=checkpoint, progress=progress
            )

    def _failed_to_check(self, error: Exception, checkpoint: str) -> None:
        report = error_report(
            error,
            model=self.model.name,
            source="train_step" if self.loss_fn is None else "loss_fn",
            settings=self.settings,
            step=self._course.count.steps(),
            checkpoint=checkpoint,
        )
        report = self._journal.note(report, self._course)
        message = f"The gradient check at {checkpoint} could not be done: {report.error}"
        self._react(self.on_error, message, error)

    def _react(self, action: str, message: str, error: Exception) -> None:
        if action == "raise":
            self._journal.close("FAILED")
            raise error
        warn(message)
        if action == "stop":
            self._course.stopped = self.model.stop_training = True

    def _make_log(self) -> Log:
        if self.tracking is not None and not isinstance(self.tracking, str):
            return OwnTracking(self.tracking, self.name)
        from tfcheck.tracking import MlflowTracking

        return MlflowTracking(
            self.run_id,
            name=self.name,
            about=about(self.settings, self.loss_fn),
            close_timeout=self.close_timeout,
        )
