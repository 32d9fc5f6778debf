"""The two checks that everything else is there for: of a model, and of a layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from tfcheck.checker import Checker, GradientChecker
from tfcheck.gradient_report import GradientReport
from tfcheck.judge.verdict import PRECISION, Thresholds
from tfcheck.rendering.progress import progress_line
from tfcheck.settings import make_settings, require_verbose
from tfcheck.trace.batch import first_batch
from tfcheck.trace.layer_call import layer_call
from tfcheck.trace.preconditions import (
    require_backend,
    require_layer,
)
from tfcheck.trace.steps import (
    LossFunction,
)


def check_gradients(
    model: keras.Model,
    x: Any,
    y: Any = None,
    sample_weight: Any = None,
    *,
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
) -> GradientReport:
    """Check a model's gradients on one batch against finite differences in float64.

    The model's own `train_step` is traced with dropout off or frozen, promoted to float64 and
    measured. Nothing is trained and nothing of the model changes.

    Args:
        model: a built Keras model on the TensorFlow backend; compiled unless `loss_fn` is given.
        x: inputs of one batch, in any form `fit` takes; a dataset gives its first batch.
        y: targets. Defaults to None.
        sample_weight: weights of the samples. Defaults to None.
        loss_fn: `loss_fn(model, x, y, sample_weight)` gives the scalar loss to check instead of
            the train step's; regularisation losses are in it only if it adds `model.losses`.
            Defaults to None.
        phase: `"train"` (the default; batch statistics in BatchNorm) or `"inference"`.
        method: `"directions"` (the default) measures along a few random directions, which sees
            all entries of a variable at once; `"full"` perturbs every single entry.
        directions: number of random directions a variable, at most 1000. Defaults to 4.
        epsilon: step of the differences: `"auto"` (the default) chooses it for each variable; a
            number from 1e-15 to 1 is an absolute step. `epsilon=1e-7, method="full"` is the
            classical recipe.
        thresholds: the bands of the similarity score. Defaults to `Thresholds()`.
        expected_mismatch: patterns (as in `fnmatch`) of layer or variable paths, with or without
            the model's own name, whose gradient is meant to differ, such as a straight-through
            estimator's. A declared layer covers the variables before it, where no other layer is
            wrong. Defaults to none.
        seed: seeds the random directions. Defaults to 0.
        precision: a layer is named imprecise when the gradients that train, in float32 or less,
            are further than this from those in float64, as a similarity score. No verdict depends
            on it. Defaults to 0.2.
        dropout: `"off"` (the default) silences it; `"frozen"` leaves it on with its masks held
            fixed, so that what is wrong only with dropout is seen.
        memory_limit: memory for measuring: bytes, or a string such as `"500MB"`, `"2GB"` or
            `"1.5GiB"`, at least 1 MB. Defaults to `"auto"`, a quarter of what is free when the
            check begins.
        time_limit: when to end with what is known by then: seconds, or a string such as `"30s"`,
            `"500ms"`, `"2m"` or `"1h"`. What was not reached is inconclusive, and a note says so.
            An evaluation, or a graph being built, is not interrupted. Defaults to None, no limit.
        verbose: 1 (the default) shows the progress of a check that takes more than two seconds in
            a terminal or a notebook, and elsewhere writes a line to the standard error every 30
            seconds; 0 shows nothing.

    Returns:
        A frozen `GradientReport`.

    Raises (all from `tfcheck.errors`):
        ArgumentError: for an option that tfcheck does not know.
        BackendError: if Keras runs on another backend.
        ModelError: if the model is not built, not compiled or has nothing to train.
        BatchError: if the batch does not fit the model, or makes its loss NaN or infinite.
        TraceError: if the training step cannot be traced.

    Example:
        >>> report = check_gradients(model, x, y)  # doctest: +SKIP
        >>> report.verdict  # doctest: +SKIP
        <Verdict.PASS: 'pass'>
    """
    settings = make_settings(
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
    require_verbose(verbose)
    require_backend()
    checker = GradientChecker(model, settings, loss_fn, once=True)
    batch = first_batch(x, y, sample_weight)
    with progress_line(verbose=verbose) as progress:
        return checker.check(batch, progress=progress)


def check_layer(
    layer: keras.Layer,
    *inputs: Any,
    arguments: Mapping[str, Any] | None = None,
    output_gradients: Any = None,
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
) -> GradientReport:
    """Check a layer's gradients by themselves, as in a unit test.

    The layer is called on the inputs and its outputs are weighted at random. The gradients of that
    with respect to every float input and every trainable variable are checked, in float64 and with
    dropout off or frozen.

    Args:
        layer: a Keras layer on the TensorFlow backend. One that is not built yet is built by a
            call on the inputs; else nothing of it changes.
        inputs: the positional arguments of the call, each with its batch axis: arrays, tensors, or
            dicts and lists of them.
        arguments: named arguments of the call, such as `{"mask": mask}`. Arrays and tensors among
            them are inputs, too; all else is passed on as it is. Defaults to none.
        output_gradients: weights of the layer's float outputs instead of random ones, in their
            structure, such as the gradients that a loss has of them. Defaults to None.
        phase: `"train"` (the default) calls the layer with `training=True`, `"inference"` with
            `training=False`; layers within it are called so, too.
        method: as for `check_gradients`. Defaults to `"directions"`.
        directions: as for `check_gradients`. Defaults to 4.
        epsilon: as for `check_gradients`. Defaults to `"auto"`.
        thresholds: as for `check_gradients`. Defaults to `Thresholds()`.
        expected_mismatch: as for `check_gradients`. Defaults to none.
        seed: as for `check_gradients`. Defaults to 0.
        precision: as for `check_gradients`. Defaults to 0.2.
        dropout: as for `check_gradients`. Defaults to `"off"`.
        memory_limit: as for `check_gradients`. Defaults to `"auto"`.
        time_limit: as for `check_gradients`. Defaults to None.
        verbose: as for `check_gradients`. Defaults to 1.

    Returns:
        A frozen `GradientReport`. An input stands in it as a variable of the layer, named `input`,
        or `input_0`, `input_1` and so on where there are several.

    Raises (all from `tfcheck.errors`):
        ArgumentError: for an option that tfcheck does not know.
        ArgumentTypeError: if `layer` is no Keras layer.
        BackendError: if Keras runs on another backend.
        BatchError: if the inputs do not fit the layer, or make its outputs NaN or infinite.
        TraceError: if the layer cannot be traced or has nothing to differentiate.

    Example:
        >>> report = check_layer(MyLayer(), x)  # doctest: +SKIP
        >>> assert report.verdict == "pass", report  # doctest: +SKIP
    """
    settings = make_settings(
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
    require_verbose(verbose)
    require_backend()
    require_layer(layer)
    step, batch = layer_call(layer, inputs, arguments, output_gradients, settings.phase)
    with progress_line(verbose=verbose) as progress:
        return Checker(step, settings, once=True).check(batch, progress=progress)
