"""What is added to a judgement: where a gradient comes from, kinks on its way, what was held."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tfcheck.errors import some
from tfcheck.examine.local_examination import Wrong
from tfcheck.graph.division import name_of
from tfcheck.judge.judgement import Judgement
from tfcheck.judge.reasons import Reason
from tfcheck.judge.verdict import Verdict


def on_kinks(judgement: Judgement, paths: Sequence[str]) -> Judgement:
    """A judgement, with the kinks of the units that the gradient comes through.

    Args:
        judgement: the judgement.
        paths: the paths of the units.
    """
    if not paths or judgement.verdict is not Verdict.PASS or judgement.reason:
        return judgement
    where = some([name_of(path) for path in paths])
    note = f"The loss has a kink at this point, in {where}; a little aside both gradients agree."
    return replace(judgement, reason=Reason.KINK, note=note)


def but_latent(judgement: Judgement, paths: Sequence[str]) -> Judgement:
    """A judgement, where units are wrong as soon as the loss has a gradient of their part.

    Args:
        judgement: the judgement.
        paths: the paths of the units.
    """
    if not paths or judgement.verdict is not Verdict.PASS:
        return judgement
    where = some([name_of(path) for path in dict.fromkeys(paths)])
    note = (
        f"The loss hands no gradient back to {where} here. Given a random one, it hands on a "
        "wrong one: so will it be as soon as the loss does."
    )
    return Judgement(Verdict.SUSPECT, "", note)


def held_fixed(judgement: Judgement, *, draws: bool) -> Judgement:
    """A judgement, with the reason where random numbers were held fixed for it.

    Args:
        judgement: the judgement.
        draws: whether the loss depends on such numbers.
    """
    plain = judgement.verdict is Verdict.PASS and not judgement.reason
    return replace(judgement, reason=Reason.STOCHASTIC) if plain and draws else judgement


def coming_through(judgement: Judgement, wrong: Sequence[Wrong]) -> Judgement:
    """A judgement, with a note that says where a wrong gradient comes from.

    Args:
        judgement: the judgement.
        wrong: the wrong units that the gradient comes through.
    """
    if judgement.verdict is Verdict.PASS or judgement.note:
        return judgement
    paths = list(dict.fromkeys(name_of(unit.path) for unit in wrong))
    if not paths:
        return judgement
    note = f"The gradient comes through {some(paths)}, which hands on a wrong one."
    return replace(judgement, note=note)
