"""A step, prepared for batches of one kind: traced and promoted once, until that trace is stale."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from typing import Any

from tfcheck.errors import ModelError, NoTapeError, TfcheckError, TraceError
from tfcheck.evaluate.around import Around
from tfcheck.objective.eager_objective import EagerObjective
from tfcheck.objective.finite import require_finite
from tfcheck.objective.graph_objective import GraphObjective
from tfcheck.objective.objective import Objective
from tfcheck.objective.point import Base
from tfcheck.trace.baked import Baked
from tfcheck.trace.batch import Batch
from tfcheck.trace.compiled_step import CompiledStep
from tfcheck.trace.steps import Step
from tfcheck.trace.tracing import trace
from tfcheck.unchanged.unchanged import unchanged


class Prepared:
    """What is prepared of a step, by what batches look like and what of the model trains.

    Args:
        step: the step.
        once: whether there will be one check only.
    """

    def __init__(self, step: Step, *, once: bool) -> None:
        self._step = step
        self._model = step.owner
        self._once = once
        self._stepped = False
        self._around: dict[Any, Around] = {}
        self._baked: dict[Any, Baked] = {}
        self._compiled: dict[Any, tuple[Objective, list[str]]] = {}

    def begin(self, *, stepped: bool) -> None:
        """Drop what later checks can make no use of, at the beginning of one.

        Args:
            stepped: whether the training has made a step.
        """
        self._stepped = stepped
        # What a step makes when it first runs, training has made since.
        self._around = {key: a for key, a in self._around.items() if not a.objective.facts.made}
        self._compiled = {
            key: (o, of) for key, (o, of) in self._compiled.items() if not o.facts.made
        }

    def _key(self, batch: Batch) -> Any:
        return (
            batch.signature(),
            id(getattr(self._model, "optimizer", None)),
            tuple(variable.trainable for variable in self._model.variables),
        )

    def around(self, batch: Batch) -> Around:
        """The step for batches of this kind: traced and promoted once, or else run eagerly.

        Args:
            batch: a batch of the kind.
        """
        key = self._key(batch)
        self._drop_stale(key)
        if self._step.eager and key not in self._around:
            return self.eagerly(batch, None)
        if key not in self._around:
            try:
                traced = trace(self._step, batch)
                self._around[key] = Around(GraphObjective(traced), once=self._once)
                scaling = traced.recording.scaling
                self._baked[key] = Baked(self._model, scaling, final=self._stepped)
            except ModelError:
                raise
            except NoTapeError as error:
                if error.idle:
                    raise
                return self.eagerly(batch, error)
            except Exception as error:  # noqa: BLE001 - the other way may do
                return self.eagerly(batch, error)
        return self._around[key]

    def _drop_stale(self, key: Any) -> None:
        """Drop what is prepared where `fit` runs another trace by now."""
        baked = self._baked.get(key)
        if baked is not None and baked.is_stale(self._model, final=self._stepped):
            self._baked.pop(key, None)
            self._around.pop(key, None)
            self._compiled.pop(key, None)

    def eagerly(self, batch: Batch, why: Exception | None) -> Around:
        """The step to be run eagerly; the error that was the reason if that is not possible.

        Args:
            batch: the debug batch.
            why: why no graph stands for it; None where it is meant to run so.
        """
        try:
            objective = EagerObjective(self._step, batch, why)
        except NoTapeError:
            raise
        except TfcheckError as error:
            raise (why if isinstance(why, TfcheckError) else error) from why
        around = self._around[self._key(batch)] = Around(objective)
        return around

    def at(self, batch: Batch, undo: ExitStack) -> tuple[Around, Base]:
        """The step, evaluated where the model stands now.

        Args:
            batch: the debug batch.
            undo: is told how to put back what evaluating it changes.
        """
        around = self.around(batch)
        objective = around.objective
        if objective.facts.calls_python:
            undo.enter_context(unchanged(self._model, self._step.run))
        try:
            base = objective.at(batch)
        except TraceError as error:
            if isinstance(objective, EagerObjective):
                raise
            around = self.eagerly(batch, error)
            base = around.objective.at(batch)
        require_finite(around.objective, base, batch)
        return around, base

    def compiled_loss(self, batch: Batch) -> tuple[Objective, list[str]]:
        """The loss that the model is compiled with, in parts, and what each part is.

        Args:
            batch: the debug batch.
        """
        key = self._key(batch)
        if key not in self._compiled:
            compiled = CompiledStep(self._model)
            step = replace(compiled.step, dropout=self._step.dropout)
            objective = (
                EagerObjective(step, batch, None)
                if self._step.eager
                else GraphObjective(trace(step, batch))
            )
            self._compiled[key] = objective, compiled.parts
        return self._compiled[key]
