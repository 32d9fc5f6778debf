"""An objective answers to all of its base, whichever kind it is, and keeps its facts."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import pytest

from tfcheck.objective.eager_objective import EagerObjective
from tfcheck.objective.graph_objective import GraphObjective
from tfcheck.objective.objective import Objective
from tfcheck.trace.batch import Batch, first_batch
from tfcheck.trace.steps import model_step
from tfcheck.trace.tracing import trace

RNG = np.random.default_rng(0)
X = RNG.normal(size=(6, 3)).astype("float32")
Y = RNG.normal(size=(6, 1)).astype("float32")

KINDS: dict[str, Callable[[keras.Model, Batch], Objective]] = {
    "graph": lambda model, batch: GraphObjective(trace(model_step(model), batch)),
    "eager": lambda model, batch: EagerObjective(model_step(model), batch, None),
}


def network() -> keras.Model:
    """A small network whose loss is smooth."""
    layers = [keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)]
    model = keras.Sequential([keras.Input((3,)), *layers], name="net")
    model.compile("sgd", "mse")
    return model


@pytest.fixture(params=KINDS)
def objective(request: pytest.FixtureRequest) -> tuple[Objective, Batch]:
    """An objective of either kind, and a batch for it."""
    batch = first_batch(X, Y)
    return KINDS[request.param](network(), batch), batch


def test_points_are_those_of_the_model(objective: tuple[Objective, Batch]) -> None:
    """The loss at a point is what its inputs give; nudged and aside, it is another."""
    found, batch = objective
    base = found.at(batch)
    assert len(base.losses) == found.loss_count == 1
    assert len(base.gradients) == len(found.parameters) == 4
    assert found.loss(0, base.inputs) == pytest.approx(base.losses[0], rel=1e-6)
    assert found.evaluations == 1
    nudged, aside = found.nudged(base, 0, seed=1), found.aside(base, seed=1)
    assert aside is not None
    assert len({base.losses[0], nudged.losses[0], aside.losses[0]}) == 3
    for parameter in found.parameters:
        along = found.along(base, parameter)
        still = np.zeros(found.value(base, parameter).shape)
        assert along(still) == pytest.approx(base.losses[0], rel=1e-6)


def test_what_only_a_graph_tells_has_an_answer(objective: tuple[Objective, Batch]) -> None:
    """Without a graph nothing is known, and nothing raises."""
    found, batch = objective
    base, parameter = found.at(batch), found.parameters[0]
    graph = isinstance(found, GraphObjective)
    for known in (found.part_of(0), found.apart[0], found.units_at(base, 0), found.traced.call(0)):
        assert (known is not None) is graph
    assert bool(parameter.held_by) is bool(parameter.total) is graph
    assert found.traced.assignments == []
    assert graph or not found.holds_back(0)
    assert not found.is_of_names(base, parameter)
    assert found.loss_uncut(0, base.inputs) == pytest.approx(base.losses[0], rel=1e-6)


def test_facts_are_known_and_stay(objective: tuple[Objective, Batch]) -> None:
    """The same facts of either kind, except for how it is evaluated; none can be set."""
    found, _ = objective
    facts, graph = found.facts, isinstance(found, GraphObjective)
    assert (facts.source, facts.lowest) == ("train_step", "float32")
    assert (facts.precision, facts.bits) == (("float64", 53) if graph else ("float32", 24))
    assert (facts.costly, facts.may_differ) == (not graph, not graph)
    assert (facts.draws, facts.samples, list(facts.constants)) == ((False,), ("",), [()])
    assert len(facts.applied) == len(facts.received) == 4
    assert facts.dropped == frozenset()
    assert facts.left_out == facts.untracked == facts.made == ()
    with pytest.raises(dataclasses.FrozenInstanceError):
        facts.source = "layer"  # type: ignore[misc]
