"""What is known of one loss at a point, each thing found once, and only when it is asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import tensorflow as tf

from tfcheck.errors import ParityError, TfcheckError
from tfcheck.evaluate.around import Around
from tfcheck.examine.subject import Subject
from tfcheck.formats import FLOAT32, FLOAT64, FORMATS
from tfcheck.judge.judgement import Judgement, judge_measurement
from tfcheck.measure.differences import MOST_MOVES, Along, measure_noise
from tfcheck.measure.directions import NUDGE, Array, generator, scale_of
from tfcheck.measure.measurement import Measurement
from tfcheck.measure.target import TAPE_ULPS, Arithmetic, Target
from tfcheck.objective.point import Base, Parameter
from tfcheck.settings import Settings

_PARITY_SENSITIVITY = 64
_COARSENESS = 2.0**12
"""What a loss does not resolve, in units of its rounding, beside the loudest gradient."""

_COARSEST = 1e-2

_JITTER = 2.0**-46
"""How far everything moves where only rounding is to change."""

_FAR = 1e3
"""A loss far from here counts at most as much larger than here, or than 1."""

_AROUND, _VERY_FAR = (1.0,), (64.0, 1024.0)
"""How far everything moves, in units of its scale; the latter overcomes even large constants."""

_ROUNDINGS = 4.0
"""How many roundings of the numbers it is a difference of may move a loss that is tiny."""

_GONE = 1e-10
"""A loss that is smaller than this part of its numbers, and all around, is gone."""

_FEW_MOVES = 2
"""How often a search for a step goes on where each evaluation runs the step in Python."""

_FINE_SPACING, _COARSE_SPACING = 2.0**-36, 2.0**-14
"""Where noise is looked for: far below any structure, unless float32 islands see no such change."""

_QUIET = 1e-6
"""Where all gradients of a loss are smaller than this part of it, that part stands in for them."""

_VANISHED = 1e-8
"""The same for the size a loss has far from here, where it has not been trained to vanish."""


class LossFacts:
    """One loss at a point.

    Args:
        around: the losses around the point.
        base: the point.
        settings: the options of the check.
        number: index of the loss.
        subjects: all that it is differentiated for.
    """

    def __init__(
        self,
        around: Around,
        base: Base,
        settings: Settings,
        number: int,
        subjects: Sequence[Subject],
    ) -> None:
        self.number = number
        self.value = base.losses[number]
        self._around, self._objective = around, around.objective
        self._base = base
        self._settings = settings
        self._subjects = [subject for subject in subjects if subject.parameter.inputs]
        self._tape_rounding = TAPE_ULPS * FORMATS[self._objective.facts.precision].unit

    # -- how large it is -------------------------------------------------------------------------

    @property
    def natural_size(self) -> float:
        """How large the loss is around here: training makes it vanish here, but not around."""
        return self._sizes[0]

    @property
    def numbers(self) -> float:
        """How large the numbers are that the loss is a difference of."""
        return self._sizes[1]

    @cached_property
    def _sizes(self) -> tuple[float, float]:
        """The natural size, and the size of the numbers.

        Where constants keep a loss small, as they do where they make predictions certain, it is
        large only very far away. Its numbers are of order one or of its own size; one that is zero
        all around, to rounding, counts as they do.
        """
        largest = max(1.0, abs(self.value))
        around = self._size_within(_AROUND)
        if around >= largest:
            return min(around, _FAR * largest), largest
        numbers = min(max(around, self._size_within(_VERY_FAR)), largest)
        return numbers if around < _GONE * numbers else around, numbers

    def _size_within(self, reaches: Sequence[float]) -> float:
        """How large the loss gets where everything moves by some of these times its scale."""
        here = abs(self.value)
        line = self._line_in_everything
        if line is None or not math.isfinite(here):
            return 1.0
        places = [sign * reach for reach in reaches for sign in (1, -1)]
        return max(filter(math.isfinite, (here, *map(abs, line.at(places)))))

    @cached_property
    def _line_in_everything(self) -> Along | None:
        """The loss along a random direction in all it is differentiated for; None for nothing."""
        moves = [(subject.parameter, subject.scale) for subject in self._subjects]
        alike = any(parameter.moves_alike for parameter, _ in moves)
        stream = "everything" if alike else f"everything {self.number}"
        directions = self._around.drawn(generator(self._settings.seed, stream), moves)
        line = self._around.line(self._base, directions) if directions else None
        return None if line is None else Along(line)

    @cached_property
    def loudest(self) -> float:
        """The largest scaled norm of a gradient of the loss, as far as it has one at all."""
        norms = [subject.size for subject in self._subjects if subject.gradient is not None]
        floors = (_QUIET * abs(self.value), _VANISHED * self.natural_size)
        return max((norm for norm in (*norms, *floors) if math.isfinite(norm)), default=0.0)

    # -- how exact it is -------------------------------------------------------------------------

    @property
    def _is_exact(self) -> bool:
        return self._objective.facts.precision == "float64" and not self._objective.facts.islands

    @cached_property
    def noise(self) -> float:
        """Its noise when everything it is differentiated for moves a little at random."""
        line = self._line_in_everything
        spacing = _FINE_SPACING if self._is_exact else _COARSE_SPACING
        noise = 0.0 if line is None else measure_noise(line, spacing)
        if noise == 0 and line is not None:
            # Nothing so close together changed it: it is rounded more coarsely than its size.
            noise = min(measure_noise(line, _COARSE_SPACING), self.tread)
        # A loss that changes by less than its rounding seems to have no noise at all.
        rounding = self.rounding / 16
        return max(noise, rounding) if math.isfinite(noise) else math.inf

    @property
    def tread(self) -> float:
        """How far rounding of the numbers it is a difference of may move the loss."""
        return _ROUNDINGS * (FLOAT64 if self._is_exact else FLOAT32).unit * self.numbers

    @property
    def rounding(self) -> float:
        """How far rounding of the tape's arithmetic may move slopes of the loss."""
        size = self.natural_size
        if self.number in self._base.coarse:
            return TAPE_ULPS * FLOAT32.unit * self.loudest
        if self._objective.facts.precision != "float64":
            size += self.loudest
        return self._tape_rounding * size

    def arithmetic(self, *, known: bool = True) -> Arithmetic:
        """What is known of its noise and rounding.

        Args:
            known: whether its noise matters, as it does where some gradient is. Defaults to True.
        """
        return Arithmetic(
            noise=self.noise if known else math.inf,
            rounding=self.rounding,
            tape_rounding=self._tape_rounding,
            tread=self.tread,
        )

    @property
    def arithmetic_here(self) -> Arithmetic:
        """What is known of its rounding by its value here alone."""
        return Arithmetic(rounding=self._tape_rounding * max(1.0, abs(self.value)))

    # -- as it is trained ------------------------------------------------------------------------

    @property
    def parity_limit(self) -> float:
        """How far training precision may move the loss: further where variables move it more.

        A loss that training has made small is a difference of larger numbers, and as uncertain as
        these are; so it counts as it would far from here.
        """
        lowest = FORMATS[self._objective.facts.lowest]
        from_variables = _PARITY_SENSITIVITY * lowest.unit * self.loudest
        from_numbers = _ROUNDINGS * lowest.unit * self.numbers
        return max(lowest.parity * self.natural_size + from_variables, from_numbers)

    @cached_property
    def parity_error(self) -> ParityError | None:
        """What is wrong where the loss is finite in float64 and not the one that is trained."""
        value, trained = self.value, self._base.losses_as_trained[self.number]
        if not (math.isfinite(value) and math.isfinite(trained)):
            return None
        # What is within rounding of the loss itself is, however large the numbers it comes from.
        nearby = abs(value - trained) <= FORMATS[self._objective.facts.lowest].parity * abs(value)
        if nearby or abs(value - trained) <= self.parity_limit:
            return None
        return ParityError(
            "The float64 graph must compute the loss that is trained. Received: "
            f"{value:.9g} in float64, {trained:.9g} as trained. Nothing was judged."
        )

    # -- other points ----------------------------------------------------------------------------

    @cached_property
    def aside(self) -> Base | None:
        """The point a little aside; None where the step cannot run there."""
        return self._moved(NUDGE)

    @cached_property
    def jittered(self) -> Base | None:
        """The point moved by a few roundings; None where the step cannot run there."""
        return self._moved(_JITTER)

    def _moved(self, size: float) -> Base | None:
        try:
            return self._objective.nudged(self._base, self.number, self._settings.seed, size)
        except (TfcheckError, tf.errors.OpError):
            return None

    # -- measuring through it --------------------------------------------------------------------

    def target(
        self,
        parameter: Parameter,
        gradient: Array | None,
        base: Base | None = None,
        *,
        heard: bool = True,
    ) -> Target:
        """A parameter, ready to be measured through the whole loss.

        Args:
            parameter: the parameter.
            gradient: the tape's gradient; None where it gave none.
            base: the point where it is measured. Defaults to this one.
            heard: whether the loss's noise matters. Defaults to True.
        """
        base = self._base if base is None else base
        loudest = self.loudest
        objective, around = self._objective, self._around
        value = objective.value(base, parameter)
        scale = scale_of(value)
        return Target(
            stream=parameter.stream,
            displaced=objective.along(base, parameter),
            draw=lambda rng: around.drawn(rng, [(parameter, scale)])[parameter],
            values_along=lambda direction: around.line(base, {parameter: direction}),
            value=value,
            gradient=gradient,
            at_zero=base.losses[self.number],
            resolution=self._settings.thresholds.okay / 30,
            loudest=loudest,
            arithmetic=self.arithmetic(known=heard and loudest > 0),
            bits=objective.facts.bits,
            start=objective.facts.first_step,
            moves=_FEW_MOVES if objective.facts.costly else MOST_MOVES,
            unit=scale,
        )

    def judged(self, measurement: Measurement, scale: float) -> Judgement:
        """The judgement of what was measured through the loss, before any second look.

        Args:
            measurement: what was measured.
            scale: size of a natural change of the variable.
        """
        coarse = min(_COARSENESS * FORMATS[self._objective.facts.precision].unit, _COARSEST)
        return judge_measurement(
            measurement, self._settings.thresholds, self.loudest, scale, coarse
        )
