"""The objective: the traced step as pure functions of plain tensors, in float64 and as trained.

An `Objective` holds one loss for each call of a tape. It can be evaluated at any point without
touching the model: variables, data and captured constants are all inputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence, Set
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import tensorflow as tf

from tfcheck.deadline import UNLIMITED, Deadline
from tfcheck.errors import TfcheckError, some, telling_line
from tfcheck.graph.division import before_all
from tfcheck.graph.excerpts import (
    Excerpts,
    LossPart,
    callable_part,
    import_tensors,
    lowest_float,
    weighted_total,
)
from tfcheck.graph.ids import only_names
from tfcheck.graph.nodes import all_nodes, assigned_in, reachable
from tfcheck.internals import live_variable, variable_spec
from tfcheck.measure.directions import NUDGE, gaussian, generator, scale_of
from tfcheck.objective.as_trained import AsTrained, Evaluated, Trained
from tfcheck.objective.point import BATCH, Base, Parameter, as_floats, elsewhere, spread
from tfcheck.promote.purify import PureGraph, purify
from tfcheck.trace.batch import Batch
from tfcheck.trace.choices import Choices
from tfcheck.trace.constants import constants_of
from tfcheck.trace.left_out import LeftOut
from tfcheck.trace.recording import Recording, TapeCall
from tfcheck.trace.refusals import does_not_run
from tfcheck.trace.tracing import TracedStep
from tfcheck.trace.untracked import untracked_in, users_in
from tfcheck.unchanged.taking import require_nothing_taken
from tfcheck.units.apart import Apart
from tfcheck.units.apart_at import ApartAt
from tfcheck.units.assembly import Promoted
from tfcheck.units.sources import Leaves, UndividedError
from tfcheck.variables import is_variable, name_of_variable, unique_paths

Array = npt.NDArray[np.float64]

ISLAND_STEP = 2.0**-8
"""Where to begin the search for a step in a loss that is partly computed in float32."""


class Objective:
    """A traced training step that can be evaluated at any point.

    Args:
        traced: the traced step.

    Attributes:
        parameters: what the tapes differentiate with respect to, in the order of their calls.
        steps: number of losses that belong to the training step itself; those of layer calls,
            where layers were listened to, follow.
        source: what was traced.
        islands: operations without a float64 form.
        random_ops: operations that draw new numbers at every evaluation.
        draws: for each loss of the step whether it depends on numbers from such operations, which
            are drawn once and held fixed.
        samples: for each loss of the step the operations that draw from distributions which are
            learnt, `""` for none.
        lowest: lowest floating precision in the step as trained, such as `"float16"`.
        untracked: the variables that the step computes with and that are no weights of the model.
        apart: for each loss its units by themselves; None where they cannot be told apart.
        applied: what the optimizers are given in the traced graph, in the order of their calls.
        received: the variables, by identity, that an optimizer is given a gradient for.
        made: variables that the step makes when it first runs; where there are any, the next one
            may not, so that its graph is another.
        updates: whether the step ought to update its variables, and what it assigns is seen.
        constants: for each loss the tensors that its tape takes for constant, since they were made
            while it did not record.
        dropped: those losses of the step whose gradients nothing in it makes use of.
        left_out: trainable variables that a loss depends on, and that no tape is asked for.
        asked_at: for each loss of the step the line that asks its tape for gradients; None where
            that is none of the user's.
        choices: what the step chooses to do beside.
        evaluations: how often a loss was evaluated.
        deadline: when evaluating it has to end; no point is evaluated after that.
        precision: the precision in which losses are evaluated.
        bits: how many bits of a variable that precision keeps.
        notes: sentences a reader should know about how it is evaluated.
        calls_python: whether a function of Python's is called whenever it is evaluated.
        costly: whether evaluations cost so much that no more than is needed are made.
        first_step: where to begin the search for a step, relative to a variable's scale; None to
            go by the loss.
    """

    precision = "float64"
    bits = 53
    notes: tuple[str, ...] = ()
    calls_python = False
    costly = False
    deadline: Deadline = UNLIMITED
    first_step: float | None

    def __init__(self, traced: TracedStep) -> None:
        recording = traced.recording
        self.source = traced.source
        self.made = traced.made
        self.steps = len(recording.tape_calls)
        self.evaluations = 0
        self._calls = list(recording.tape_calls)
        self.asked_at = tuple(call.place for call in recording.tape_calls)
        self.received = frozenset(id(applied.variable) for applied in recording.applied)
        self.applied = [
            applied
            for applied in recording.applied
            if applied.gradient.graph is traced.function.graph
        ]
        self._captured = traced.captures
        self._layer_calls = recording.calls
        self._specs = {
            placeholder.op.name: spec
            for outside, placeholder in traced.captures
            if placeholder.dtype == tf.resource
            for spec in [variable_spec(outside)]
            if spec is not None
        }
        self._names = [
            *(tensor.op.name for tensor in traced.placeholders),
            *(placeholder.op.name for _, placeholder in traced.captures),
        ]
        behind = {id(v.handle): v for v in traced.function.graph.variables}
        self._labels = {
            **{tensor.op.name: f"{BATCH}{i}" for i, tensor in enumerate(traced.placeholders)},
            **{p.op.name: behind[id(o)].name for o, p in traced.captures if id(o) in behind},
        }
        self._paths = {
            placeholder.name: name_of_variable(recording.known_as(behind[id(outside)]))
            for outside, placeholder in traced.captures
            if id(outside) in behind
        }
        graph_def = traced.function.graph.as_graph_def()
        names_assigned = assigned_in(graph_def) if recording.reached else set()
        assigned = {id(o) for o, p in traced.captures if p.op.name in names_assigned}
        self.untracked = untracked_in(recording, assigned, users_in(traced))
        self.updates = bool(recording.expected) and not _assigns_out_of_sight(graph_def)
        self.lowest = lowest_float(graph_def)
        self.constants = constants_of(
            traced.function.graph, self._calls, traced.placeholders, self._specs.keys()
        )
        self._build(graph_def, _unscaled(recording))
        self._graph_def = graph_def
        self._as_trained = AsTrained(graph_def, self._names, self._specs, self._calls)
        self._find_parameters()
        self.left_out = self._left_out(recording, assigned)
        self.choices = Choices(recording)

    def _fetches(self, others: Iterable[tf.Tensor | None]) -> list[str]:
        """The tensors of the traced graph that are wanted, besides others."""
        calls = self._calls
        fetches = [tensor.name for call in calls for tensor in _tensors(call)]
        fetches += [tensor.name for tensor in others if tensor is not None]
        fetches += [applied.gradient.name for applied in self.applied]
        fetches += [a.divisor.name for a in self.applied if tf.is_tensor(a.divisor)]
        fetches += [weight.name for call in calls for weight in call.weights]
        return fetches + [tensor.name for call in calls for tensor in _of_units(call)]

    def _build(self, graph_def: Any, unscaled: Sequence[tf.Tensor | None]) -> None:
        """Import the float64 graph."""
        calls = self._calls
        cut_at = [source for call in calls for source in call.sources if not is_variable(source)]
        cut_at += [tensor for constants in self.constants for tensor in constants]
        fetches = self._fetches([*cut_at, *unscaled])
        pure = purify(graph_def, self._specs, fetches, sources=[tensor.name for tensor in cut_at])
        self._tensors = pure.tensors
        self.islands, self.random_ops = pure.islands, pure.random_ops
        self.first_step = ISLAND_STEP if pure.islands else None
        self._cuts = pure.cuts
        nodes = self._nodes = {node.name: node for node in pure.graph_def.node}
        require_nothing_taken(all_nodes(pure.graph_def))
        self.calls_python = any(node.op in _PYTHON for node in all_nodes(pure.graph_def))
        self._targets = [[pure.tensors[t.name] for t in call.targets] for call in calls]
        self.dropped = self._dropped(pure)
        noted = {noted.partition(" (")[2].rstrip(")") for noted in pure.random_ops}
        drawn = {new.split(":")[0] for old, new in pure.drawn.items() if old.split(":")[0] in noted}
        before = [
            {node.name for node in reachable(nodes, targets)}
            for targets in self._targets[: self.steps]
        ]
        self.draws = tuple(not drawn.isdisjoint(names) for names in before)
        self.samples = tuple(some(sorted(pure.sampled & names)) for names in before)
        self._assigned = {
            cut.variable for cut in pure.cuts for of in before if cut.tensor.split(":")[0] in of
        }
        self._inputs = [index for index, name in enumerate(self._names) if name in nodes]

        def imported() -> dict[str, Any]:
            wanted = [
                *pure.tensors.values(),
                *(cut.tensor for cut in pure.cuts),
                *pure.drawn.values(),
            ]
            tensors = import_tensors(pure.graph_def, wanted)

            def new(tensor: tf.Tensor) -> tf.Tensor:
                return tensors[pure.tensors[tensor.name]]

            weights = [
                [None if w is None else new(w) for w in call.output_gradients] for call in calls
            ]
            held = [
                *(tensors[cut.tensor] for cut in pure.cuts),
                *(tensors[name] for name in pure.drawn.values()),
                *(weight for call in weights for weight in call if weight is not None),
                *(new(source) for source in cut_at),
            ]
            losses = [
                weighted_total([new(target) for target in call.targets], call_weights)
                for call, call_weights in zip(calls, weights, strict=True)
            ]
            return {
                "losses": losses,
                "applied": [new(applied.gradient) for applied in self.applied],
                "divisors": [
                    tf.cast(new(d) if tf.is_tensor(d) else d, tf.float64)
                    for applied in self.applied
                    for d in [applied.divisor]
                ],
                "factors": [
                    [tf.cast(new(weight), tf.float64) for weight in call.weights]
                    for call in calls[: self.steps]
                ],
                "held": list({tensor.ref(): tensor for tensor in held}.values()),
                "scales": [
                    tf.ones((), tf.float64) if before is None else loss / new(before)
                    for loss, before in zip(losses, unscaled, strict=False)
                ],
                "gradients": [
                    [new(gradient) for gradient in call.gradients if gradient is not None]
                    for call in calls
                ],
            }

        whole = tf.compat.v1.wrap_function(imported, [])
        self._graph = whole.graph
        self._source = Excerpts(whole.graph.as_graph_def())
        self._outputs = whole.structured_outputs
        feeds = [whole.graph.as_graph_element(f"{self._names[index]}:0") for index in self._inputs]
        self._feeds = [*feeds, *self._outputs["held"]]
        self.apart = [self._apart(loss, pure, whole.graph) for loss in range(len(calls))]
        wanted = dict.fromkeys(
            n for apart in self.apart if apart is not None for n in apart.fetches
        )
        self._outputs["units"] = {name: whole.graph.as_graph_element(name) for name in wanted}
        self._at_base = callable_part(self._source, feeds, self._outputs)
        self._functions: dict[tuple[str, int], Callable[..., Any]] = {}
        self._parts: dict[int, LossPart] = {}
        self._uncut: Callable[..., Any] | None = None
        held = {
            tensor.name: len(feeds) + position
            for position, tensor in enumerate(self._outputs["held"])
        }
        self._position_of_cut = [held[cut.tensor] for cut in pure.cuts]
        self._position_of_drawn = {ref: held[name] for ref, name in pure.drawn.items()}
        self._position_of_tensor = {
            tensor.name: held[pure.tensors[tensor.name]]
            for tensor in (
                *cut_at,
                *(w for call in calls for w in call.output_gradients if w is not None),
            )
        }

    def _apart(self, loss: int, pure: PureGraph, graph: tf.Graph) -> Apart | None:
        """The units of a loss by themselves, where they can be told apart."""
        call = self._calls[loss]
        placeholder_of = {id(outside): p.op.name for outside, p in self._captured}
        totals: dict[str, str | None] = {}
        variables: dict[str, int | None] = {}
        for source, gradient in zip(call.sources, call.gradients, strict=True):
            if tf.as_dtype(source.dtype).is_complex:
                continue
            total = None if gradient is None else pure.tensors[gradient.name]
            if not is_variable(source):
                held_by, which = [pure.tensors[source.name]], None
            else:
                name = placeholder_of.get(id(live_variable(source).handle), "")
                held_by = [f"{name}:0"] if name in self._nodes else []
                held_by += [cut.tensor for cut in pure.cuts if cut.variable == name]
                which = id(source)
            totals |= dict.fromkeys(held_by, total)
            variables |= dict.fromkeys(held_by, which)
        constants = {pure.tensors[tensor.name] for tensor in self.constants[loss]}
        constants |= {cut.tensor for cut in pure.cuts} - totals.keys()
        leaves = Leaves(totals, variables, frozenset(constants))
        try:
            return Apart(call, Promoted(graph, self._source, pure.tensors, self._feeds), leaves)
        except UndividedError:
            return None

    def units_at(self, base: Base, loss: int) -> ApartAt | None:
        """The units of a loss at a point by themselves; None where they cannot be told apart."""
        apart = self.apart[loss]
        if apart is None or not base.units:
            return None
        given = {feed.name: value for feed, value in zip(self._feeds, base.inputs, strict=True)}
        return ApartAt(apart, {**given, **base.units}, self.deadline)

    def given(self, base: Base, apart: Apart) -> dict[str, tf.Tensor]:
        """What units are given at a point by variables, by the names of the tensors.

        Args:
            base: the point.
            apart: the units.
        """
        given = {feed.name: value for feed, value in zip(self._feeds, base.inputs, strict=True)}
        read = {s.name: given[s.leaf] for s in apart.sources if s.leaf is not None}
        return {**base.units, **given, **read}

    def total_of(self, position: int) -> str | None:
        """The tensor of a parameter's gradient in the float64 graph; None where the tape has none.

        Args:
            position: the parameter's position.
        """
        parameter = self.parameters[position]
        gradient = self._calls[parameter.loss].gradients[parameter.number]
        return None if gradient is None else self._tensors[gradient.name]

    def traced_call(self, loss: int) -> TapeCall | None:
        """The call of a tape in the traced graph that a loss stands for; None without a graph."""
        return self._calls[loss]

    @property
    def assignments(self) -> list[tf.Operation]:
        """The operations of the traced graph that assign what a loss of the step uses."""
        operations = self._calls[0].targets[0].graph.get_operations() if self._assigned else ()
        return [
            operation
            for operation in operations
            if operation.type.startswith("Assign") and operation.inputs[0].op.name in self._assigned
        ]

    def made_in(self, operation: tf.Operation) -> str:
        """The path of the innermost layer that makes an operation in the traced graph, or `""`."""
        position = operation.graph.get_operations().index(operation)
        around = [call for call in self._layer_calls if call.makes(position)]
        return around[-1].path if around else ""

    def behind(self, operation: tf.Operation) -> frozenset[str]:
        """The paths of the parameters that an operation in the traced graph is computed from."""
        before = before_all(operation.inputs)
        starts = [(p, self.traced_start(p)) for p in self.parameters if p.loss < self.steps]
        return frozenset(
            p.path for p, start in starts if start is not None and start.op.name in before
        )

    def variable_behind(self, handle: tf.Tensor) -> str:
        """The path or name of the variable that a handle in the traced graph belongs to."""
        return self._paths.get(handle.name, handle.op.name)

    def traced_start(self, parameter: Parameter) -> tf.Tensor | None:
        """The tensor of the traced graph that a parameter is, or a variable's handle in it."""
        if parameter.within:
            return parameter.variable
        handle = live_variable(parameter.variable).handle
        return next((inside for outside, inside in self._captured if outside is handle), None)

    @property
    def may_differ(self) -> bool:
        """Whether a loss may be another one when it is evaluated again at the same point."""
        return self.calls_python or bool(self.random_ops or self.islands)

    def held_by(self, parameter: Parameter) -> tuple[str, ...]:
        """The names of the tensors that hold a parameter's value in the float64 graph."""
        return tuple(self._feeds[position].name for position in parameter.inputs)

    def is_of_names(self, base: Base, parameter: Parameter) -> bool:
        """Whether an input holds whole numbers that the step only uses as ids or a mask."""
        if not parameter.within:
            return False
        value = self.value(base, parameter)
        if np.any(value != np.rint(value)):
            return False
        (held,) = self.held_by(parameter)
        return only_names(reachable(self._nodes, self._targets[parameter.loss]), held)

    def _dropped(self, pure: PureGraph) -> frozenset[int]:
        """The losses of the step whose gradients nothing in it makes use of."""
        calls = self._calls[: self.steps]
        used = [applied.gradient.name for applied in self.applied]
        used += [target.name for call in calls for target in call.targets]
        sinks = [pure.tensors[name] for name in used] + [cut.tensor for cut in pure.cuts]
        needed = {node.name for node in reachable(self._nodes, sinks)}
        return frozenset(
            loss
            for loss, call in enumerate(calls)
            if needed.isdisjoint(
                pure.tensors[g.name].split(":")[0] for g in call.gradients if g is not None
            )
        )

    def _function(self, kind: str, loss: int) -> Callable[..., Any]:
        """One loss, or its gradients, as a function of the inputs.

        Fed are the inputs proper, assigned values, and what belongs to this loss alone: feeding
        the cuts of other losses would cut this one off from what comes before them.
        """
        if (kind, loss) not in self._functions:
            self._functions[kind, loss] = self._part(self._outputs[kind][loss], [loss])
        return self._functions[kind, loss]

    def _part(self, fetches: Any, losses: Sequence[int]) -> Callable[..., Any]:
        """What belongs to some losses, as a function of the inputs."""
        fed = self._fed(losses, tf.nest.flatten(fetches))
        function = callable_part(self._source, [self._feeds[position] for position in fed], fetches)
        return lambda inputs: function(*(inputs[position] for position in fed))

    def _fed(self, losses: Sequence[int], fetches: Sequence[tf.Tensor]) -> list[int]:
        """The positions of the inputs that something of these losses alone is computed from."""
        own = [
            tensor
            for loss in losses
            for call in [self._calls[loss]]
            for tensor in (*call.sources, *call.output_gradients, *self.constants[loss])
            if tensor is not None and not is_variable(tensor)
        ]
        fed = [
            *range(len(self._inputs)),
            *self._position_of_cut,
            *self._position_of_drawn.values(),
            *(self._position_of_tensor[tensor.name] for tensor in own),
        ]
        fed = list(dict.fromkeys(fed))
        names = [self._feeds[position].name for position in fed]
        return [fed[n] for n in self._source.used(names, [tensor.name for tensor in fetches])]

    def _find_parameters(self) -> None:
        position_of = {self._names[index]: position for position, index in enumerate(self._inputs)}
        placeholder_of = {
            id(outside): placeholder.op.name for outside, placeholder in self._captured
        }
        variables = [
            source for call in self._calls for source in call.sources if is_variable(source)
        ]
        paths = unique_paths(variables)
        parameters = []
        for loss, call in enumerate(self._calls):
            for number, source in enumerate(call.sources):
                if not is_variable(source):
                    position = self._position_of_tensor[source.name]
                    path = call.names[number] if call.names else source.name
                    parameters.append(Parameter(source, path, loss, (position,), number))
                    continue
                name = placeholder_of.get(id(live_variable(source).handle), "")
                inputs = [position_of[name]] if name in position_of else []
                inputs += [
                    position
                    for cut, position in zip(self._cuts, self._position_of_cut, strict=True)
                    if cut.variable == name
                ]
                parameters.append(Parameter(source, paths[id(source)], loss, tuple(inputs), number))
        self.parameters = tuple(parameters)

    def _left_out(self, recording: Recording, assigned: Set[int]) -> tuple[Any, ...]:
        if not recording.reached:
            return ()
        targets = [name for of_loss in self._targets[: self.steps] for name in of_loss]
        forward = reachable(self._nodes, targets)
        placeholder_of = {id(outside): p.op.name for outside, p in self._captured}
        return LeftOut(recording, assigned, forward, placeholder_of).variables()

    def at(self, batch: Batch) -> Base:
        """Evaluate losses and analytic gradients where the model stands now, on a batch.

        Args:
            batch: a batch with the shapes and dtypes that were traced.
        """
        values = self._values(batch)
        inputs = [
            values[index]
            if feed.dtype in (tf.resource, tf.variant, tf.string)
            else tf.cast(values[index], feed.dtype)
            for index, feed in zip(self._inputs, self._feeds, strict=False)
        ]
        found = self._run(inputs)
        point = (*inputs, *found["held"])
        trained = self._as_trained.at(values, self._drawn(point))
        scales = [
            float(scale) if np.isfinite(scale) and scale != 0 else 1.0 for scale in found["scales"]
        ]
        gradients = [
            gradient
            for call, of_call in zip(self._calls, found["gradients"], strict=True)
            for gradient in spread(call, of_call)
        ]
        errors = list(found["errors"])
        coarse = set()
        for position, (parameter, instead) in enumerate(
            zip(self.parameters, trained.gradients, strict=False)
        ):
            loss = parameter.loss
            # An operation of the backward pass without a float64 kernel is no mistake of the step.
            if instead is not None and found["errors"][loss] and not self._calls[loss].error:
                gradients[position] = np.asarray(instead, np.float64)
                errors[loss] = ""
                coarse.add(loss)
        return Base(
            inputs=point,
            losses=tuple(float(loss) for loss in found["losses"]),
            losses_as_trained=trained.losses,
            scales=(*scales, *(1.0 for _ in self._calls[len(scales) :])),
            gradients=tuple(gradients),
            errors=tuple(errors),
            coarse=frozenset(coarse),
            applied=tuple(map(as_floats, found["applied"])),
            divisors=tuple(map(float, found["divisors"])),
            factors=_with_inverses(found["factors"]),
            gradients_as_trained=trained.gradients,
            units=found.get("units", {}),
        )

    def aside(self, base: Base, seed: int) -> Base | None:
        """Losses, gradients and what is applied where everything is a good deal different.

        Every float that goes into the step, be it of a variable or of the batch, is multiplied with
        a random number near 1; the same one in every objective of the same model and seed.

        Args:
            base: the point to move away from.
            seed: seeds the factors.

        Returns:
            The other point; None where the step cannot be evaluated there.
        """
        self.deadline.require_time()
        inputs = [
            elsewhere(value, seed, self._label(self._names[index]))
            for index, value in zip(self._inputs, base.inputs, strict=False)
        ]
        try:
            found = self._run(inputs)
        except TfcheckError:
            return None
        return Base(
            inputs=(*inputs, *found["held"]),
            losses=tuple(float(loss) for loss in found["losses"]),
            losses_as_trained=base.losses_as_trained,
            scales=base.scales,
            gradients=tuple(
                gradient
                for call, of_call in zip(self._calls, found["gradients"], strict=True)
                for gradient in spread(call, of_call)
            ),
            errors=found["errors"],
            applied=tuple(map(as_floats, found["applied"])),
            divisors=base.divisors,
            factors=_with_inverses(found["factors"]),
        )

    def _label(self, placeholder: str) -> str:
        """A name for an input that does not depend on how the step was traced."""
        return self._labels.get(placeholder, placeholder)

    def trained_at(self, batch: Batch, base: Base) -> Evaluated:
        """Losses and gradients at a point, in the precision that trains.

        Args:
            batch: the batch of the point, for what it holds beside floats.
            base: the point.
        """
        self.deadline.require_time()
        return self._as_trained.at(self._values_at(batch, base), self._drawn(base.inputs))

    def units_as_trained(self, batch: Batch, base: Base, loss: int) -> dict[str, Trained]:
        """What units of a loss give each other, and the gradients of it, in training precision.

        Args:
            batch: the batch of the point.
            base: the point.
            loss: the loss.

        Returns:
            The values by the names of their tensors in the float64 graph.
        """
        self.deadline.require_time()
        call = self._calls[loss]
        if call.division is None:
            return {}
        between = (*call.division.behind, *call.shares)
        of_units = replace(call, gradients=between)
        trained = AsTrained(self._graph_def, self._names, self._specs, [of_units])
        found = trained.at(self._values_at(batch, base), self._drawn(base.inputs)).gradients
        return {
            self._tensors[tensor.name]: value
            for tensor, value in zip(between, found, strict=True)
            if tensor is not None and value is not None
        }

    def compiled_at(self, batch: Batch, base: Base) -> Evaluated:
        """The same as `trained_at` where XLA compiles the step.

        Raises:
            TraceError: if XLA cannot.
        """
        self.deadline.require_time()
        values = self._values_at(batch, base)
        return self._as_trained.compiled_at(values, self._drawn(base.inputs))

    def _values_at(self, batch: Batch, base: Base) -> list[Any]:
        values = self._values(batch)
        for position, index in enumerate(self._inputs):
            if self._feeds[position].dtype.is_floating:
                values[index] = tf.cast(base.inputs[position], values[index].dtype)
        return values

    def _values(self, batch: Batch) -> list[Any]:
        """A tensor for each input that was traced, in its own precision, as things stand now."""
        values: list[Any] = list(batch.tensors)
        for outside, placeholder in self._captured:
            spec = self._specs.get(placeholder.op.name)
            values.append(
                outside
                if spec is None
                else tf.raw_ops.ReadVariableOp(resource=outside, dtype=spec.dtype)
            )
        return values

    def _drawn(self, point: Sequence[tf.Tensor]) -> dict[str, tf.Tensor]:
        """The raw random numbers that a point holds fixed, by the names of their tensors."""
        return {ref: point[position] for ref, position in self._position_of_drawn.items()}

    def _run(self, inputs: Sequence[tf.Tensor]) -> dict[str, Any]:
        """Everything there is to know at a point, with the errors of tapes that cannot run."""
        errors = [call.error for call in self._calls]
        try:
            return {**self._at_base(*inputs), "errors": tuple(errors)}
        except tf.errors.OpError as error:
            failure = error
        forward = {name: self._outputs[name] for name in ("losses", "held", "scales")}
        try:
            found = callable_part(self._source, self._feeds[: len(inputs)], forward)(*inputs)
        except tf.errors.OpError as error:
            raise does_not_run(error, self.source) from failure
        point = (*inputs, *found["held"])
        found |= {"gradients": [], "applied": [], "divisors": [], "factors": []}
        for loss, call in enumerate(self._calls):
            try:
                found["gradients"].append(self._function("gradients", loss)(point))
            except tf.errors.OpError as error:
                errors[loss] = f"{type(error).__name__}: {telling_line(error.message)}"
                found["gradients"].append([None for g in call.gradients if g is not None])
        return {**found, "errors": tuple(errors)}

    def _nudged_inputs(self, base: Base, loss: int, seed: int, size: float) -> list[tf.Tensor]:
        """The inputs where all that a loss is differentiated for moves a little at random.

        Args:
            base: the point to move from.
            loss: the loss.
            seed: seeds the moves.
            size: how far, relative to the scale of what moves.
        """
        inputs = list(base.inputs)
        for parameter in self.parameters:
            if parameter.loss != loss or not parameter.inputs:
                continue
            value = as_floats(base.inputs[parameter.inputs[0]])
            rng = generator(seed, parameter.stream, "nudge")
            change = size * gaussian(rng, value.shape, scale_of(value))
            for position in parameter.inputs:
                inputs[position] = tf.constant(as_floats(base.inputs[position]) + change)
        return inputs

    def nudged(self, base: Base, loss: int, seed: int, size: float = NUDGE) -> Base:
        """One loss a little aside: all that it is differentiated with respect to moves at random.

        A loss that is piecewise smooth has a derivative at almost every point, so a point drawn at
        random near a kink sits on none. Only the loss asked for and its gradients are evaluated.
        """
        self.deadline.require_time()
        inputs = self._nudged_inputs(base, loss, seed, size)
        found = self._function("gradients", loss)(inputs)
        gradients = iter(spread(self._calls[loss], found))
        losses = list(base.losses)
        losses[loss] = self.loss(loss, inputs)
        return Base(
            inputs=tuple(inputs),
            losses=tuple(losses),
            losses_as_trained=base.losses_as_trained,
            scales=base.scales,
            gradients=tuple(
                next(gradients) if parameter.loss == loss else None for parameter in self.parameters
            ),
            errors=base.errors,
            units=base.units,
        )

    def loss(self, index: int, inputs: Sequence[tf.Tensor]) -> float:
        """Value of one loss at a point, given as one tensor for each input.

        It is `nan` where an operation refuses the point, such as a Cholesky decomposition.
        """
        self.deadline.require_time()
        self.evaluations += 1
        try:
            return float(self._function("losses", index)(inputs))
        except tf.errors.OpError:
            return math.nan

    def holds_back(self, loss: int) -> bool:
        """Whether `loss_uncut` of this loss may depend on more than `loss` does."""
        return loss < self.steps and bool(self._cuts or self.constants[loss])

    def loss_uncut(self, index: int, inputs: Sequence[tf.Tensor]) -> float:
        """Value of one loss where values assigned in the step follow from what they depend on.

        For a tape, and for `loss`, they are leaves of their own. Only of losses that hold something
        back: see `holds_back`.
        """
        self.deadline.require_time()
        self.evaluations += 1
        if self._uncut is None:
            losses = self._outputs["losses"][: self.steps]
            feeds = self._feeds[: len(self._inputs)]
            self._uncut = callable_part(self._source, feeds, losses)
        try:
            return float(self._uncut(*inputs[: len(self._inputs)])[index])
        except tf.errors.OpError:
            return math.nan

    @staticmethod
    def value(base: Base, parameter: Parameter) -> Array:
        """A parameter's value at a point."""
        if parameter.inputs:
            return as_floats(base.inputs[parameter.inputs[0]])
        return as_floats(parameter.variable)

    def along(
        self, base: Base, parameter: Parameter, *, uncut: bool = False
    ) -> Callable[[Array], float]:
        """The loss of a parameter's tape as a function of that parameter's displacement.

        Args:
            base: the point.
            parameter: the parameter.
            uncut: whether to go through values assigned in the step, unlike the tape. Defaults to
                False.
        """
        loss = self.loss_uncut if uncut else self.loss
        inputs = list(base.inputs)
        positions, values = self.along_inputs(base, parameter)

        def displaced(displacement: Array) -> float:
            for position, value in zip(positions, values, strict=True):
                inputs[position] = tf.constant(value + displacement)
            return loss(parameter.loss, inputs)

        return displaced

    def part_of(self, loss: int) -> LossPart | None:
        """The graph that computes one of the step's own losses; None for those of layer calls.

        What serves a single examination is not worth another graph.
        """
        if loss >= self.steps:
            return None
        if loss not in self._parts:
            value = self._outputs["losses"][loss]
            positions = self._fed([loss], [value])
            feeds = [self._feeds[position] for position in positions]
            self._parts[loss] = LossPart(loss, self._source, feeds, positions, value.name)
        return self._parts[loss]

    @staticmethod
    def along_inputs(base: Base, parameter: Parameter) -> tuple[tuple[int, ...], list[Array]]:
        """The positions of a parameter's inputs and their values at a point."""
        values = [as_floats(base.inputs[position]) for position in parameter.inputs]
        return parameter.inputs, values


def _unscaled(recording: Recording) -> list[tf.Tensor | None]:
    """For each tape call the loss before it was scaled, None where it was not."""
    before = {scaled.ref(): loss for scaled, loss in recording.loss_scales if tf.is_tensor(loss)}
    return [
        before.get(call.targets[0].ref()) if len(call.targets) == 1 else None
        for call in recording.tape_calls
    ]


def _assigns_out_of_sight(graph_def: Any) -> bool:
    """Whether variables are assigned to in loops, branches or other nested functions."""
    nodes = (node for function in graph_def.library.function for node in function.node_def)
    return any(node.op.startswith("Assign") for node in nodes)


_PYTHON = ("PyFunc", "PyFuncStateless", "EagerPyFunc")


def _with_inverses(factors: Sequence[Sequence[Any]]) -> tuple[tuple[float, ...], ...]:
    """Each loss's factors, and what it would be multiplied with if it was divided by them."""
    return tuple(
        tuple(f for value in of_loss if float(value) for f in (float(value), 1 / float(value)))
        for of_loss in factors
    )


def _of_units(call: TapeCall) -> list[tf.Tensor]:
    """The tensors between the units of a call's targets, and the gradients of them."""
    if call.division is None:
        return []
    return [*call.division.behind, *(share for share in call.shares if share is not None)]


def _tensors(call: TapeCall) -> list[tf.Tensor]:
    return [
        tensor
        for tensor in (*call.targets, *call.output_gradients, *call.gradients)
        if tensor is not None
    ]
