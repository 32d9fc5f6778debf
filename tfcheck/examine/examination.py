"""Examining a point: every variable measured and judged, one after the other."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import numpy as np
import tensorflow as tf

from tfcheck.deadline import TimeIsUpError
from tfcheck.errors import ParityError, TfcheckError, some
from tfcheck.evaluate.around import Around
from tfcheck.examine.composition import Member, disagrees
from tfcheck.examine.corrected import Corrected, Correction
from tfcheck.examine.held import notes_on_held
from tfcheck.examine.local_examination import LocalExamination
from tfcheck.examine.locally import Locally
from tfcheck.formats import FLOAT32, FLOAT64, FORMATS
from tfcheck.graph.division import name_of
from tfcheck.judge.judgement import (
    Judgement,
    detectable_error,
    judge_measurement,
    judge_missing,
    settled,
)
from tfcheck.judge.reasons import Reason
from tfcheck.judge.second_look import Look, look_again
from tfcheck.judge.verdict import Verdict
from tfcheck.measure.dependence import depends, only_jumps
from tfcheck.measure.differences import FIRST_STEP, MOST_MOVES, Along, measure_noise
from tfcheck.measure.directions import NUDGE, Array, generator, norm, scale_of
from tfcheck.measure.measurement import Measurement, glance, measure_directions
from tfcheck.measure.pattern import pattern_of
from tfcheck.measure.sweep import loudest_entries, measure_coordinate, measure_every_coordinate
from tfcheck.measure.target import TAPE_ULPS, Arithmetic, Line, Target
from tfcheck.measure.wrong_entries import suspicious_entries
from tfcheck.memory import bytes_of
from tfcheck.objective.point import Base, Parameter
from tfcheck.progress import Progress
from tfcheck.report.rows import Coordinate, VariableReport
from tfcheck.settings import Settings

_Result = TypeVar("_Result")

_PARITY_SENSITIVITY = 64
_COARSENESS = 2.0**12
"""What a loss does not resolve, in units of its rounding, beside the loudest gradient."""

_COARSEST = 1e-2

_JITTER = 2.0**-46
_QUIET_PART = 1e-4
_ROUNDED = 0.1
"""A gradient of at most this part of the loudest is but rounding where it changes that much."""

_WORST_SHOWN = 5
_FEW_SHOWN = 3
"""How many of the worst entries are measured, and how many where each costs the whole loss."""

_VANISHED = 1e-8
"""The same for the size a loss has far from here, where it has not been trained to vanish."""

_FAR = 1e3
"""A loss far from here counts at most as much larger than here, or than 1."""

_AROUND, _VERY_FAR = (1.0,), (64.0, 1024.0)
"""How far everything moves, in units of its scale; the latter overcomes even large constants."""

_ROUNDINGS = 4.0
"""How many roundings of the numbers it is a difference of may move a loss that is tiny."""

_GONE = 1e-10
"""A loss that is smaller than this part of its numbers, and all around, is gone."""

_MOST_LOOKED_INTO, _MOST_OF_MANY = 12, 2
"""How many wrong variables are looked into closely, and how many where there are many in all."""

_FEW_MOVES = 2
"""How often a search for a step goes on where each evaluation runs the step in Python."""

_MANY = 32
"""With more variables than this, few that are wrong are looked into closely."""

_FINE_SPACING, _COARSE_SPACING = 2.0**-36, 2.0**-14
"""Where noise is looked for: far below any structure, unless float32 islands see no such change."""
_QUIET = 1e-6
"""Where all gradients of a loss are smaller than this part of it, that part stands in for them."""


NOT_REACHED = Judgement(
    Verdict.INCONCLUSIVE, Reason.UNCHECKED, "It was not reached within the time_limit."
)
"""Of a variable that there was no time to measure."""

JUMPING = "something on the way (a sign, a comparison, a rounding)"
"""What has no slope, where no more is known."""

_JUMPS = (
    "The tape's gradient is zero throughout, and the loss depends on this variable in jumps alone: "
    f"there is no slope to train by in {JUMPING}."
)


_NAMES = "It is only used as integers, such as ids, or compared: there is no gradient to check."


@dataclass(frozen=True)
class Finding:
    """One parameter's report, with the squares that layer and model scores are made of."""

    report: VariableReport
    gap_square: float = math.nan
    numerical_square: float = math.nan
    analytic_square: float = math.nan


class Examination:
    """One check at one point: measuring and judging parameter by parameter.

    Args:
        around: the losses around the point.
        base: the point.
        settings: the options of the check.
        progress: called as the examination goes on.
        verdicts_only: whether what is wrong need not be looked into closely. Defaults to False.

    Attributes:
        local: the losses that are examined unit by unit.
        cut_short: whether there was no time for some of it.
        uncomposed: whether there was no time to see if the loss contradicts the units.
    """

    def __init__(
        self,
        around: Around,
        base: Base,
        settings: Settings,
        progress: Progress,
        *,
        verdicts_only: bool = False,
    ) -> None:
        self.around = around
        objective = self.objective = around.objective
        self.base = base
        self.settings = settings
        self.progress = progress
        self.notes = list(objective.facts.notes)
        self._evaluated_before = objective.evaluations
        self._nudged: dict[int, Base | None] = {}
        self._jittered: dict[int, Base | None] = {}
        self.local: dict[int, LocalExamination] = {}
        self.cut_short = self.uncomposed = False
        self._like: dict[int, Line] = {}
        self._right: dict[int, dict[int, Corrected]] = {}
        self._noise: dict[int, float] = {}
        self._everything: dict[int, Along | None] = {}
        self._scales = {
            parameter: scale_of(objective.value(base, parameter))
            for parameter in objective.parameters
        }
        self._tape_rounding = TAPE_ULPS * FORMATS[objective.facts.precision].unit
        self._known_sizes: dict[int, tuple[float, float]] = {}
        self._many = len(objective.parameters) > _MANY or objective.facts.costly
        self._most = _MOST_OF_MANY if self._many else _MOST_LOOKED_INTO
        self._verdicts_only = verdicts_only
        self._localised = 0
        self._looks = 0
        self._tried_jumps = 0
        self._contradicting: set[int] = set()
        self._known_loudest: dict[int, float] = {}

    @property
    def parity(self) -> ParityError | None:
        """What is wrong where a finite loss in float64 is not the one that is trained."""
        errors = map(self._off_parity, range(self.objective.loss_count))
        return next((error for error in errors if error is not None), None)

    def _off_parity(self, loss: int) -> ParityError | None:
        value, trained = self.base.losses[loss], self.base.losses_as_trained[loss]
        if not (math.isfinite(value) and math.isfinite(trained)):
            return None
        # What is within rounding of the loss itself is, however large the numbers it comes from.
        nearby = abs(value - trained) <= FORMATS[self.objective.facts.lowest].parity * abs(value)
        if nearby or abs(value - trained) <= self.parity_limit(loss):
            return None
        return ParityError(
            "The float64 graph must compute the loss that is trained. Received: "
            f"{value:.9g} in float64, {trained:.9g} as trained. Nothing was judged."
        )

    @property
    def evaluations(self) -> int:
        """How often a loss was evaluated since the examination began."""
        local = sum(local.locally.at.evaluations for local in self.local.values())
        return self.objective.evaluations - self._evaluated_before + math.ceil(local)

    def examine(self) -> list[Finding]:
        """The findings for all trainable variables of the training step, one a variable."""
        positions = [
            position
            for position, parameter in enumerate(self.objective.parameters)
            if parameter.within or parameter.variable.trainable
        ]
        obstacles = [
            self._in_time(partial(self._obstacle, loss), None)
            for loss in range(self.objective.loss_count)
        ]
        self.notes.extend(dict.fromkeys(o.note for o in obstacles if o is not None and o.note))
        if any(self.objective.facts.draws):
            self.notes.append(
                f"The loss draws random numbers with {some(self.objective.facts.random_ops)}. They "
                "were drawn once and held fixed; draw them from a keras.random.SeedGenerator to "
                "train reproducibly."
            )
        self.notes += notes_on_held(self.objective)
        if self.base.coarse:
            self.notes.append(
                "An operation of the backward pass has no float64 form: the tape's gradients are "
                "those of the training precision."
            )
        if self.objective.facts.islands:
            self.notes.append(
                f"{len(self.objective.facts.islands)} operation(s) have no float64 form and were "
                f"measured in their own precision: {some(self.objective.facts.islands)}."
            )
        sizes = [entries(self.objective.parameters[position]) for position in positions]
        if self.settings.method != "full" and self.settings.epsilon == "auto":
            for loss, obstacle in enumerate(obstacles):
                if obstacle is None:
                    self._in_time(partial(self.examine_locally, loss), None)
        found: dict[str, Finding] = {}
        for done, position in enumerate(positions):
            parameter = self.objective.parameters[position]
            if self.settings.method == "full":
                meter = _Meter(self.progress, parameter.path, sum(sizes[:done]), sum(sizes))
            else:
                meter = _Meter(self.progress, parameter.path, done, len(positions), counting=False)
            finding = self.examine_one(position, obstacles[parameter.loss], meter.advance)
            keep(found, finding)
        try:
            self._contradicting |= set(filter(self._contradicted, self.local))
        except TimeIsUpError:
            self.uncomposed = True
        for position in positions:
            if self.objective.parameters[position].loss in self._contradicting:
                keep(found, self.examine_one(position))
        return list(found.values())

    def _contradicted(self, loss: int) -> bool:
        """Whether the loss itself contradicts what the units say of its gradients."""
        local = self.local[loss]
        right = self._corrected(loss, local) if local.wrong else {}
        members: dict[Parameter, Member] = {}
        for position, parameter in enumerate(self.objective.parameters):
            gradient = self.base.gradients[position]
            if parameter.loss != loss or gradient is None or not parameter.inputs:
                continue
            if local.wrong_behind(parameter.held_by):
                if position not in right:
                    return False
                gradient = right[position].gradient
            if gradient.shape != tuple(parameter.variable.shape):
                return False
            members[parameter] = Member(gradient, self._scales[parameter])
        finite = all(np.all(np.isfinite(member.gradient)) for member in members.values())
        plain = not any(wrong.source.leaf is not None for wrong in local.wrong)
        return (
            bool(members)
            and finite
            and plain
            and disagrees(
                self.around,
                self.base,
                members,
                self.settings,
                Arithmetic(rounding=self._tape_rounding * max(1.0, abs(self.base.losses[loss]))),
            )
        )

    def examine_locally(self, loss: int) -> None:
        """Examine a loss unit by unit, where that can be done."""
        at = self.objective.units_at(self.base, loss)
        if at is None or loss in self.local:
            return
        self.progress("every layer by itself", 0, 0)
        self.local[loss] = LocalExamination(Locally(at, self.settings), self.settings)
        self.cut_short |= self.local[loss].cut_short

    def _in_time(self, action: Callable[[], _Result], otherwise: _Result) -> _Result:
        """What comes of something; `otherwise` where there is no time for it."""
        try:
            return action()
        except TimeIsUpError:
            self.cut_short = True
            return otherwise

    def _loudest(self, loss: int) -> float:
        """The largest scaled norm of a gradient of a loss, as far as it has one at all."""
        if loss not in self._known_loudest:
            self._known_loudest[loss] = self._loudest_of(loss)
        return self._known_loudest[loss]

    def _loudest_of(self, loss: int) -> float:
        norms = [
            float(np.linalg.norm(gradient)) * self._scales[parameter]
            for parameter, gradient in zip(
                self.objective.parameters, self.base.gradients, strict=True
            )
            if parameter.loss == loss and gradient is not None and parameter.inputs
        ]
        floors = [_QUIET * abs(self.base.losses[loss]), _VANISHED * self._sizes(loss)[0]]
        return max((norm for norm in (*norms, *floors) if math.isfinite(norm)), default=0.0)

    def _size_within(self, loss: int, reaches: Sequence[float]) -> float:
        """How large a loss gets where everything moves by some of these times its scale."""
        here = abs(self.base.losses[loss])
        line = self._line_in_everything(loss)
        if line is None or not math.isfinite(here):
            return 1.0
        places = [sign * reach for reach in reaches for sign in (1, -1)]
        return max(filter(math.isfinite, (here, *map(abs, line.at(places)))))

    def _sizes(self, loss: int) -> tuple[float, float]:
        """The `_sizes_of` a loss, found once, and only where they matter."""
        if loss not in self._known_sizes:
            self._known_sizes[loss] = self._sizes_of(loss)
        return self._known_sizes[loss]

    def _sizes_of(self, loss: int) -> tuple[float, float]:
        """How large a loss is around here, and how large the numbers it is a difference of.

        Training makes losses vanish here, but not around. Where constants keep one small, as they
        do where they make predictions certain, it is large only very far away. Its numbers are of
        order one or of its own size; one that is zero all around, to rounding, counts as they do.
        """
        largest = max(1.0, abs(self.base.losses[loss]))
        around = self._size_within(loss, _AROUND)
        if around >= largest:
            return min(around, _FAR * largest), largest
        numbers = min(max(around, self._size_within(loss, _VERY_FAR)), largest)
        return numbers if around < _GONE * numbers else around, numbers

    def _line_in_everything(self, loss: int) -> Along | None:
        """A loss along a random direction in all it is differentiated for; None for nothing."""
        if loss not in self._everything:
            parameters = [p for p in self.objective.parameters if p.loss == loss and p.inputs]
            moves = [(parameter, self._scales[parameter]) for parameter in parameters]
            alike = any(parameter.moves_alike for parameter in parameters)
            rng = generator(self.settings.seed, "everything" if alike else f"everything {loss}")
            directions = self.around.drawn(rng, moves)
            line = self.around.line(self.base, directions) if directions else None
            self._everything[loss] = None if line is None else Along(line)
        return self._everything[loss]

    def _noise_of(self, loss: int) -> float:
        """The noise of a loss when everything it is differentiated for moves a little at random."""
        if loss not in self._noise:
            line = self._line_in_everything(loss)
            rough = self.objective.facts.islands or self.objective.facts.precision != "float64"
            spacing = _COARSE_SPACING if rough else _FINE_SPACING
            noise = 0.0 if line is None else measure_noise(line, spacing)
            if noise == 0 and line is not None:
                # Nothing so close together changed it: it is rounded more coarsely than its size.
                noise = min(measure_noise(line, _COARSE_SPACING), self._tread(loss))
            # A loss that changes by less than its rounding seems to have no noise at all.
            rounding = self._rounding(loss) / 16
            self._noise[loss] = max(noise, rounding) if math.isfinite(noise) else math.inf
        return self._noise[loss]

    def _arithmetic(self, loss: int, *, known: bool = True) -> Arithmetic:
        """What is known of the loss's noise and rounding; noise only where some gradient is."""
        return Arithmetic(
            noise=self._noise_of(loss) if known else math.inf,
            rounding=self._rounding(loss),
            tape_rounding=self._tape_rounding,
            tread=self._tread(loss),
        )

    def _tread(self, loss: int) -> float:
        """How far rounding of the numbers it is a difference of may move a loss."""
        exact = self.objective.facts.precision == "float64" and not self.objective.facts.islands
        size = self._sizes(loss)[1]
        return _ROUNDINGS * (FLOAT64 if exact else FLOAT32).unit * size

    def _rounding(self, loss: int) -> float:
        size = self._sizes(loss)[0]
        if loss in self.base.coarse:
            return TAPE_ULPS * FLOAT32.unit * self._loudest(loss)
        if self.objective.facts.precision != "float64":
            size += self._loudest(loss)
        return self._tape_rounding * size

    def _obstacle(self, loss: int) -> Judgement | None:
        """What makes every gradient of this loss impossible to judge, if anything does."""
        value = self.base.losses[loss]
        if not math.isfinite(value):
            return Judgement(Verdict.FAIL, Reason.NON_FINITE, f"The loss is {value}.")
        if not math.isfinite(trained := self.base.losses_as_trained[loss]):
            note = (
                f"The loss is {trained} in {self.objective.facts.lowest}, in which it trains, "
                f"though it is {value / self.base.scales[loss]:.3g} in float64."
            )
            return Judgement(Verdict.FAIL, Reason.NON_FINITE, note)
        if self.objective.facts.may_differ and self._differs(loss):
            what = (
                some(self.objective.facts.random_ops) or "an operation outside TensorFlow's seeds"
            )
            return Judgement(
                Verdict.INCONCLUSIVE,
                Reason.STOCHASTIC,
                f"The loss differs between two evaluations at one point: {what} draws new numbers "
                "each time. Draw them from a keras.random.SeedGenerator.",
            )
        if sampling := self.objective.facts.samples[loss]:
            return Judgement(
                Verdict.INCONCLUSIVE,
                Reason.STOCHASTIC,
                f"{sampling} draws from a distribution that is trained. How the samples move with "
                "it, no difference between two draws shows.",
            )
        error = self._off_parity(loss)
        return None if error is None else Judgement(Verdict.INCONCLUSIVE, "", str(error))

    def _differs(self, loss: int) -> bool:
        """Whether two evaluations of a loss at one point differ."""
        inputs = self.base.inputs
        return self.objective.loss(loss, inputs) != self.objective.loss(loss, inputs)

    def parity_limit(self, loss: int) -> float:
        """How far training precision may move the loss: further where variables move it more.

        A loss that training has made small is a difference of larger numbers, and as uncertain as
        these are; so it counts as it would far from here.
        """
        lowest = self.objective.facts.lowest
        from_variables = _PARITY_SENSITIVITY * FORMATS[lowest].unit * self._loudest(loss)
        from_numbers = _ROUNDINGS * FORMATS[lowest].unit * self._sizes(loss)[1]
        return max(FORMATS[lowest].parity * self._sizes(loss)[0] + from_variables, from_numbers)

    def _target(
        self, parameter: Parameter, gradient: Any, base: Base, loudest: float, *, heard: bool = True
    ) -> Target:
        value = self.objective.value(base, parameter)
        around, scale = self.around, scale_of(value)
        return Target(
            stream=parameter.stream,
            displaced=self.objective.along(base, parameter),
            draw=lambda rng: around.drawn(rng, [(parameter, scale)])[parameter],
            values_along=lambda direction: around.line(base, {parameter: direction}),
            value=value,
            gradient=gradient,
            at_zero=base.losses[parameter.loss],
            resolution=self.settings.thresholds.okay / 30,
            loudest=loudest,
            arithmetic=self._arithmetic(parameter.loss, known=heard and loudest > 0),
            bits=self.objective.facts.bits,
            start=self.objective.facts.first_step,
            moves=_FEW_MOVES if self.objective.facts.costly else MOST_MOVES,
            unit=scale,
        )

    def examine_one(
        self,
        position: int,
        obstacle: Judgement | None = None,
        advance: Callable[[int], None] = lambda _count: None,
    ) -> Finding:
        """Measure and judge one parameter.

        Args:
            position: its position among the objective's parameters.
            obstacle: what makes its loss impossible to judge. Defaults to None.
            advance: called with the number of entries perturbed. Defaults to nothing.
        """
        before = self._without_measuring(position, obstacle)
        if before is not None:
            return self._finding(position, None, before)
        found = self._in_time(partial(self._measured, position, advance), None)
        return self._finding(position, None, NOT_REACHED) if found is None else found

    def _measured(self, position: int, advance: Callable[[int], None]) -> Finding:
        """What the units say of a parameter, or the loss, where that contradicts them."""
        trusted = self.objective.parameters[position].loss not in self._contradicting
        found = self._from_units(position) if trusted else None
        return self._through_the_loss(position, advance) if found is None else found

    def _without_measuring(self, position: int, obstacle: Judgement | None) -> Judgement | None:
        """The judgement of a parameter that needs no measuring, or allows none."""
        parameter, gradient = self.objective.parameters[position], self.base.gradients[position]
        shape = tuple(parameter.variable.shape)
        if tf.as_dtype(parameter.variable.dtype).is_complex:
            note = "Variables of complex numbers are not measured."
            return Judgement(Verdict.INCONCLUSIVE, Reason.UNCHECKED, note)
        if gradient is not None and gradient.shape != shape:
            note = (
                f"The tape's gradient has shape {gradient.shape}, but the variable has shape "
                f"{shape}."
            )
            return Judgement(Verdict.FAIL, Reason.WRONG_SHAPE, note)
        if gradient is not None and not np.all(np.isfinite(gradient)):
            count = int(np.size(gradient) - np.count_nonzero(np.isfinite(gradient)))
            note = f"{count} of {np.size(gradient)} entries of the tape's gradient are not finite."
            return Judgement(Verdict.FAIL, Reason.NON_FINITE, note)
        spoilt = self._spoilt_in_training(position)
        if spoilt:
            return Judgement(Verdict.FAIL, Reason.NON_FINITE, spoilt)
        if obstacle is not None:
            return replace(obstacle, note="")
        if gradient is None and self.objective.is_of_names(self.base, parameter):
            return Judgement(Verdict.PASS, Reason.UNUSED, _NAMES)
        if not parameter.inputs or math.prod(shape) == 0:
            return Judgement(Verdict.PASS, Reason.UNUSED, "The loss does not use this variable.")
        return None

    def _from_units(self, position: int) -> Finding | None:
        """What the units that use a parameter say of it; None where they do not suffice."""
        parameter, gradient = self.objective.parameters[position], self.base.gradients[position]
        local = self.local.get(parameter.loss)
        if local is None:
            return None
        leaves = parameter.held_by
        sources = local.sources_of(leaves)
        if not sources and gradient is None and not self.objective.holds_back(parameter.loss):
            unused = Judgement(Verdict.PASS, Reason.UNUSED, "The loss does not use this variable.")
            return self._finding(position, None, unused)
        if gradient is None or not sources or local.is_unclear(leaves):
            return None
        if not np.any(gradient) and local.is_blocked(leaves):
            return self._finding(position, None, Judgement(Verdict.FAIL, Reason.BLOCKED, _JUMPS))
        if not np.any(gradient) and local.may_jump(leaves):
            return None
        if local.wrong_behind(leaves):
            return self._before_wrong_units(position, local)
        if not all(source.units for source in sources):
            return None
        target = local.target(sources)
        measurement = local.measurement(sources, target.norm)
        if measurement is not None:
            look = Look(local.judged(measurement, target), measurement)
        else:
            look = local.look(sources)
        if look.judgement.verdict in (Verdict.FAIL, Verdict.SUSPECT):
            self._in_time(partial(local.accuse_users, sources), None)
        judgement = self._on_kinks(look.judgement, local.kinks_behind(leaves))
        judgement = self._but_latent(judgement, local.latent_behind(leaves))
        judgement = self._drawn(parameter, judgement)
        return self._finding(position, look.measurement, judgement, target, look.slopes)

    def _before_wrong_units(self, position: int, local: LocalExamination) -> Finding | None:
        """What the gradient of a parameter before wrong units is, and what it would be.

        Of the first few it is measured through the loss besides.
        """
        parameter, gradient = self.objective.parameters[position], self.base.gradients[position]
        right = self._corrected(parameter.loss, local).get(position)
        if right is None or gradient is None:
            return None
        measurement = right.measurement(gradient)
        judgement = self._judged(measurement, parameter.loss, self._scales[parameter])
        target = None
        if judgement.verdict in (Verdict.FAIL, Verdict.SUSPECT) and self._looked_into:
            loudest = self._loudest(parameter.loss)
            target = self._target(parameter, gradient, self.base, loudest, heard=False)
            # What is measured through the loss must be what it would be.
            (line,) = measure_directions(
                replace(target, gradient=right.gradient), 1, None, self.settings.seed
            ).lines
            if line.plainly_off:
                return None
            target = replace(target, known=right.gradient, known_bar=right.bar)
        judgement = self._drawn(parameter, self._where_from(parameter, judgement))
        return self._finding(position, measurement, judgement, target)

    def _corrected(self, loss: int, local: LocalExamination) -> dict[int, Corrected]:
        """The right gradients of the parameters before wrong units, found once for all of them."""
        if loss not in self._right:
            totals = {
                position: total
                for position, parameter in enumerate(self.objective.parameters)
                if parameter.loss == loss
                if local.wrong_behind(parameter.held_by)
                if (total := self.objective.parameters[position].total) is not None
            }
            found = Correction(local).gradients(list(totals.values()))
            self._right[loss] = {} if found is None else dict(zip(totals, found, strict=True))
        return self._right[loss]

    @staticmethod
    def _but_latent(judgement: Judgement, paths: Sequence[str]) -> Judgement:
        """The judgement, where units are wrong as soon as the loss has a gradient of their part."""
        if not paths or judgement.verdict is not Verdict.PASS:
            return judgement
        where = some([name_of(path) for path in dict.fromkeys(paths)])
        note = (
            f"The loss hands no gradient back to {where} here. Given a random one, it hands on a "
            "wrong one: so will it be as soon as the loss does."
        )
        return Judgement(Verdict.SUSPECT, "", note)

    @staticmethod
    def _on_kinks(judgement: Judgement, paths: Sequence[str]) -> Judgement:
        """The judgement, with the kinks of the units that the gradient comes through."""
        if not paths or judgement.verdict is not Verdict.PASS or judgement.reason:
            return judgement
        where = some([name_of(path) for path in paths])
        note = (
            f"The loss has a kink at this point, in {where}; a little aside both gradients agree."
        )
        return replace(judgement, reason=Reason.KINK, note=note)

    def _drawn(self, parameter: Parameter, judgement: Judgement) -> Judgement:
        """The judgement, with the reason where random numbers were held fixed for it."""
        plain = judgement.verdict is Verdict.PASS and not judgement.reason
        draws = self.objective.facts.draws[parameter.loss]
        return replace(judgement, reason=Reason.STOCHASTIC) if plain and draws else judgement

    def _through_the_loss(self, position: int, advance: Callable[[int], None]) -> Finding:
        """Measure a parameter's derivative through the whole loss."""
        parameter, gradient = self.objective.parameters[position], self.base.gradients[position]
        target = self._target(parameter, gradient, self.base, self._loudest(parameter.loss))
        measurement: Measurement | None
        slopes = None
        if gradient is None:
            judgement, measurement, target = self._missing(target, parameter, advance)
        else:
            measurement = self._measure(target, parameter, advance)
            judgement = self._judged(measurement, parameter.loss, target.scale)
            if self._jumps_alone(target, judgement):
                judgement = Judgement(Verdict.FAIL, Reason.BLOCKED, _JUMPS)
            elif judgement.verdict is not Verdict.PASS:
                look = self._second_look(position, Look(judgement, measurement), target)
                judgement, measurement, slopes = look.judgement, look.measurement, look.slopes
        judgement = self._drawn(parameter, self._where_from(parameter, judgement))
        return self._finding(position, measurement, judgement, target, slopes)

    def _missing(
        self, target: Target, parameter: Parameter, advance: Callable[[int], None]
    ) -> tuple[Judgement, Measurement | None, Target]:
        """Judge a parameter for which the tape gave None; only the first are measured, too.

        What depends on it only by way of values that the step assigns is measured past that.
        """
        dependent = depends(target, self.settings.seed)
        if not dependent and self.objective.holds_back(parameter.loss):
            uncut = self.objective.along(self.base, parameter, uncut=True)
            target = replace(target, displaced=uncut, draw=None, values_along=None)
            dependent = depends(target, self.settings.seed)
        judgement = judge_missing(dependent, self.base.errors[parameter.loss])
        closely = self._looked_into or self.settings.method == "full"
        if not (dependent and closely):
            return judgement, None, target
        return judgement, self._measure(target, parameter, advance), target

    def _where_from(self, parameter: Parameter, judgement: Judgement) -> Judgement:
        """The judgement, with a note that says where a wrong gradient comes from."""
        local = self.local.get(parameter.loss)
        if local is None or judgement.verdict is Verdict.PASS or judgement.note:
            return judgement
        wrong = local.wrong_behind(parameter.held_by)
        paths = list(dict.fromkeys(name_of(w.path) for w in wrong))
        if not paths:
            return judgement
        note = f"The gradient comes through {some(paths)}, which hands on a wrong one."
        return replace(judgement, note=note)

    def _judged(self, measurement: Measurement, loss: int, scale: float) -> Judgement:
        coarse = min(_COARSENESS * FORMATS[self.objective.facts.precision].unit, _COARSEST)
        loudest = self._loudest(loss)
        return judge_measurement(measurement, self.settings.thresholds, loudest, scale, coarse)

    def _spoilt_in_training(self, position: int) -> str:
        """What to say of a gradient that only the training precision makes NaN or infinite.

        An optimizer that scales its loss expects that, and leaves such a step out.
        """
        trained = self.base.gradients_as_trained
        gradient = trained[position] if position < len(trained) else None
        loss = self.objective.parameters[position].loss
        if gradient is None or self.base.scales[loss] != 1.0 or np.all(np.isfinite(gradient)):
            return ""
        count = int(np.size(gradient) - np.count_nonzero(np.isfinite(gradient)))
        return (
            f"{count} of {np.size(gradient)} entries of the gradient are not finite in "
            f"{self.objective.facts.lowest}, in which it trains, though they are in float64."
        )

    def _measure(
        self, target: Target, parameter: Parameter, advance: Callable[[int], None]
    ) -> Measurement:
        self.objective.deadline.require_time()
        epsilon = None if self.settings.epsilon == "auto" else float(self.settings.epsilon)
        if self.settings.method == "full":
            limit = bytes_of(self.settings.memory_limit)
            target = replace(target, entries=self.around.entries(self.base, parameter, limit))
            return measure_every_coordinate(target, epsilon, advance)
        directions, seed = self.settings.directions, self.settings.seed
        enough = self._verdicts_only or self.objective.facts.costly or self._localised >= self._most
        brief = self._many and enough
        like = self._like.get(parameter.loss)
        if brief and like is not None:
            seen = glance(target, like, seed)
            if seen is not None:
                return seen
        measurement = measure_directions(target, directions, epsilon, seed, brief=brief)
        if measurement.lines and measurement.lines[0].plainly_off:
            self._like.setdefault(parameter.loss, measurement.lines[0])
        return measurement

    def _second_look(self, position: int, first: Look, target: Target) -> Look:
        """Judge again with a look a little aside; on a kink, what was measured there counts."""
        deviating = [line for line in first.measurement.lines if line.deviates]
        certain = bool(deviating) and all(map(settled, deviating))
        self._looks += 1
        if (rounded := self._within_rounding(position, first)) is not None:
            return rounded
        if certain and self._looks > self._most:
            return first
        parameter = self.objective.parameters[position]
        return look_again(
            first,
            target,
            lambda: self._target_aside(position),
            lambda measurement, there: self._judged(measurement, parameter.loss, there.scale),
            directions=1 if self.objective.facts.costly else self.settings.directions,
            seed=self.settings.seed,
            widely=self._looks <= _MOST_LOOKED_INTO and not self.objective.facts.costly,
            brief=self.objective.facts.costly,
        )

    def _target_aside(self, position: int) -> Target | None:
        """A parameter at the point a little aside; None where nothing is known there."""
        parameter = self.objective.parameters[position]
        nudged = self._aside(parameter.loss)
        gradient = None if nudged is None else nudged.gradients[position]
        if nudged is None or gradient is None or not np.all(np.isfinite(gradient)):
            return None
        return self._target(parameter, gradient, nudged, self._loudest(parameter.loss))

    def _jumps_alone(self, target: Target, judgement: Judgement) -> bool:
        """Whether two gradients that are zero throughout are so because the loss has only jumps."""
        silent = target.gradient is not None and not np.any(target.gradient)
        accused = judgement.verdict in (Verdict.FAIL, Verdict.SUSPECT)
        if not silent or accused or self._tried_jumps >= _MOST_LOOKED_INTO:
            return False
        self._tried_jumps += 1
        return only_jumps(target, self.settings.seed)

    def _within_rounding(self, position: int, first: Look) -> Look | None:
        """A look that counts rounding of the tape's own arithmetic, where that explains the gap.

        A step that amplifies rounding, as layers of BatchNorm on equal samples do, gives another
        gradient where everything has moved by a few units in the last place: so far it may be off.
        """
        parameter, gradient = self.objective.parameters[position], self.base.gradients[position]
        loss, scale = parameter.loss, self._scales[parameter]
        if gradient is None:
            return None
        if np.linalg.norm(gradient) * scale > _QUIET_PART * self._loudest(loss):
            return None
        if loss not in self._jittered:
            self._jittered[loss] = self._moved(loss, _JITTER)
        jittered = self._jittered[loss]
        again = None if jittered is None else jittered.gradients[position]
        if again is None:
            return None
        rounding = float(np.linalg.norm(again - gradient)) / _ROUNDED
        measurement = first.measurement.with_more(rounding)
        if not measurement.gap_square <= measurement.bar_square:
            return None
        note = "Beside the others it is zero but for rounding of the tape's own arithmetic."
        return Look(Judgement(Verdict.PASS, Reason.BELOW_RESOLUTION, note), measurement)

    def _moved(self, loss: int, size: float) -> Base | None:
        """The point where everything has moved a little; None where the step cannot run there."""
        try:
            return self.objective.nudged(self.base, loss, self.settings.seed, size)
        except (TfcheckError, tf.errors.OpError):
            return None

    def _aside(self, loss: int) -> Base | None:
        """The point a little aside, made once a loss; None where the step cannot run there."""
        if loss not in self._nudged:
            self._nudged[loss] = self._moved(loss, NUDGE)
        return self._nudged[loss]

    def _finding(
        self,
        position: int,
        measurement: Measurement | None,
        judgement: Judgement,
        target: Target | None = None,
        slopes: tuple[float, float, float] | None = None,
    ) -> Finding:
        parameter, gradient = self.objective.parameters[position], self.base.gradients[position]
        scale = self.base.scales[parameter.loss]
        path = parameter.path
        layer = path.rsplit("/", 1)[0] if "/" in path else path
        wrong = judgement.verdict in (Verdict.FAIL, Verdict.SUSPECT)
        known = gradient is not None and judgement.reason != Reason.WRONG_SHAPE
        size = norm(np.zeros(0) if gradient is None else gradient) if known else math.nan
        report = VariableReport(
            path=path,
            layer=layer,
            shape=tuple(parameter.variable.shape),
            score=math.nan,
            verdict=judgement.verdict,
            reason=judgement.reason,
            analytic_norm=size / abs(scale),
            numerical_norm=math.nan,
            error_bar=math.nan,
            note=judgement.note,
        )
        if measurement is None:
            if judgement.reason == Reason.UNUSED:
                return Finding(replace(report, score=0.0, numerical_norm=0.0), 0.0, 0.0, 0.0)
            return Finding(report)
        report = replace(
            report,
            score=_score_shown(measurement, judgement.reason),
            numerical_norm=_numerical_norm_shown(measurement, judgement.reason) / abs(scale),
            error_bar=measurement.score_bar,
            detectable_error=detectable_error(
                measurement, judgement.reason, self.settings.thresholds
            )
            / abs(scale),
            slopes=slopes,
        )
        if wrong and target is not None:
            told = judgement.reason == Reason.BLOCKED
            pattern = partial(self._pattern, target, parameter, measurement)
            report = replace(
                report,
                pattern="" if told else self._in_time(pattern, ""),
                worst=self._in_time(partial(self._worst_coordinates, target, scale), ()),
            )
            if _contradicted_by_entries(report, measurement):
                report = replace(
                    report, verdict=Verdict.INCONCLUSIVE, reason="", pattern="", note=_NO_ENTRY
                )
        squared = scale**2
        return Finding(
            report,
            measurement.gap_square / squared,
            measurement.numerical_square / squared,
            measurement.analytic_square / squared,
        )

    @property
    def _looked_into(self) -> bool:
        """Whether another wrong variable is looked into closely."""
        return not self._verdicts_only and self._localised < self._most

    def _pattern(self, target: Target, parameter: Parameter, measurement: Measurement) -> str:
        """How the gradient is wrong; only of the first few failing variables."""
        if not self._looked_into or not (measurement.lines or target.known is not None):
            return ""
        others = {
            other.path: gradient
            for other, gradient in zip(self.objective.parameters, self.base.gradients, strict=True)
            if other.loss == parameter.loss and other is not parameter and gradient is not None
        }
        step = measurement.lines[0].slope.step / 4 if measurement.lines else FIRST_STEP
        return pattern_of(target, step, others)

    def _worst_coordinates(self, target: Target, scale: float) -> tuple[Coordinate, ...]:
        """The most deviating entries among those that are likely to be wrong.

        Only of the first few failing variables: where one layer corrupts all before it, their
        entries tell nothing more.
        """
        if not self._looked_into:
            return ()
        self._localised += 1
        if target.known is not None:
            return _known_coordinates(target, target.known, scale)
        coordinates = []
        search = not self.objective.facts.costly
        for index in suspicious_entries(target, _WORST_SHOWN if search else _FEW_SHOWN):
            line: Line = measure_coordinate(target, index, search=search)
            unit = target.scale * scale
            analytic = math.nan if target.gradient is None else line.analytic / unit
            coordinates.append(
                Coordinate(
                    index, analytic, line.slope.value / unit, line.slope.error_bar / abs(unit)
                )
            )

        def deviation(coordinate: Coordinate) -> float:
            gap = abs(np.nan_to_num(coordinate.analytic) - coordinate.numerical)
            return math.inf if math.isnan(gap) else gap

        return tuple(sorted(coordinates, key=deviation, reverse=True))


def _contradicted_by_entries(report: VariableReport, measurement: Measurement) -> bool:
    """Whether a gap hardly larger than its bar is found in none of the entries looked at."""
    bar = measurement.bar_square
    barely = bar < measurement.gap_square <= _BARELY**2 * bar
    equal = all(abs(c.analytic - c.numerical) <= c.error_bar for c in report.worst)
    return bool(report.worst) and barely and equal


_BARELY = 3.0
_NO_ENTRY = (
    "The score is hardly more than its error bar, and of the entries most likely to differ none "
    "does."
)


def _numerical_norm_shown(measurement: Measurement, reason: str) -> float:
    """‖ĝ‖ for the report: measured jointly and too small to be seen, it is unknown."""
    unseen = reason == Reason.BELOW_RESOLUTION and not measurement.lines
    return math.nan if unseen else measurement.numerical_norm


def _score_shown(measurement: Measurement, reason: str) -> float:
    """The score for the report: two gradients that are both zero within the bar have none."""
    if reason == Reason.BELOW_RESOLUTION:
        return math.nan
    return 0.0 if reason == Reason.UNUSED else measurement.score


def entries(parameter: Parameter) -> int:
    """Number of entries of a parameter."""
    return int(np.prod(parameter.variable.shape))


def parity(value: float, trained: float) -> float:
    """Relative difference between the loss in float64 and as trained."""
    if value == trained:
        return 0.0
    return abs(value - trained) / max(abs(value), abs(trained))


def _known_coordinates(target: Target, right: Array, scale: float) -> tuple[Coordinate, ...]:
    """The entries of a variable that are furthest from its right gradient."""
    worst = loudest_entries(right - target.tape, _WORST_SHOWN)
    bar = target.known_bar / abs(scale)
    return tuple(
        Coordinate(index, float(target.tape[index]) / scale, float(right[index]) / scale, bar)
        for index in worst
    )


def keep(found: dict[str, Finding], finding: Finding) -> None:
    """Keep a variable's finding, or the worse one, where there is one already."""
    path = finding.report.path
    if path not in found or _outranks(finding, found[path]):
        found[path] = finding


def _outranks(new: Finding, old: Finding) -> bool:
    """Whether a variable's new finding is worse; several tapes give it several findings."""
    severity, before = new.report.verdict.severity, old.report.verdict.severity
    if severity != before:
        return severity > before
    return bool(np.nan_to_num(new.report.score) > np.nan_to_num(old.report.score))


_TOLD_EVERY = 64


class _Meter:
    """Progress through the entries of one variable, told on every few dozen."""

    def __init__(
        self, progress: Progress, path: str, done: int, total: int, *, counting: bool = True
    ) -> None:
        self._progress, self._path, self._total = progress, path, total
        self._done = done
        self._counting = counting
        self._tell()

    def advance(self, count: int) -> None:
        """Note that `count` more entries are done."""
        if self._counting:
            before, self._done = self._done, self._done + count
            if before // _TOLD_EVERY < self._done // _TOLD_EVERY:
                self._tell()

    def _tell(self) -> None:
        self._progress(self._path, self._done, self._total)
