"""What else differs between two runs: the batch, what is declared, versions, options, the code."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tfcheck.runs.record import FIRST, RunRecord

COMMIT = "mlflow.source.git.commit"
"""The tag in which MLflow keeps the commit of the script that ran."""

_VERSIONS = {
    "version": "tfcheck",
    "tensorflow": "TensorFlow",
    "keras": "Keras",
    "python": "Python",
}
_BATCH, _BATCH_SIZE, _DECLARED = "batch_fingerprint", "batch_size", "expected_mismatch"
_OPTION = re.compile(rf"({FIRST}(?:-.+)?)\.([a-z_]+)")
_HASH = re.compile(r"[0-9a-fA-F]{7,64}")
_PLACE = re.compile(r"(?P<file>[^<].*?):\d+(?: in .*)?$")
_SHORT = 10
_NUMBERED = "optimizer_name"
"""A parameter that MLflow's Keras callback logs."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A value that differs.

    Attributes:
        kind: `"batch"`, `"declared"`, `"version"`, `"option"` of the checks, `"parameter"` of the
            training, or `"commit"`.
        name: what it is the value of.
        base: its value in the base; `""` where it has none.
        run: its value in the run.
    """

    kind: str
    name: str
    base: str
    run: str


@dataclass(frozen=True, slots=True)
class Differences:
    """What differs between a run and the one it is compared with.

    Attributes:
        base: the run that is compared with.
        run: the run.
        batch: whether both were checked on the same batch, as a sentence.
        declared: whether both expect the same mismatches, as a sentence.
        code: whether both ran the same commit, as a sentence.
        command: shows what changed in the code of the culprits; `""` where there is nothing to run.
        values: every value that differs.
    """

    base: RunRecord
    run: RunRecord
    batch: str
    declared: str
    code: str
    command: str
    values: tuple[Difference, ...]

    def of(self, *kinds: str) -> tuple[Difference, ...]:
        """The values of these kinds."""
        return tuple(value for value in self.values if value.kind in kinds)


def differences(base: RunRecord, run: RunRecord) -> Differences:
    """Compare all but the findings."""
    return Differences(
        base,
        run,
        _same_batch(base, run),
        _same_declared(base, run),
        _same_code(base, run),
        diff_command(base, run),
        tuple(_values(base, run)),
    )


def diff_command(base: RunRecord, run: RunRecord) -> str:
    """The command that shows what changed in the files of the culprits between two commits.

    Returns:
        The command; of all files where no culprit has a known one; `""` where a commit is unknown
        or both are the same.
    """
    before, after = _commit(base), _commit(run)
    if not before or not after or before == after:
        return ""
    places = [*run.places.values(), *base.places.values()]
    files = [found["file"] for found in map(_PLACE.match, places) if found]
    # A place is told relative to where the training ran, which need not be the top of the tree.
    paths = [shlex.quote(f":(top,glob)**/{file}") for file in dict.fromkeys(files)]
    command = f"git diff {before[:_SHORT]}..{after[:_SHORT]}"
    return f"{command} -- {' '.join(paths)}" if paths else command


def _commit(run: RunRecord) -> str:
    """The commit of a run, if it is one: a tag can hold anything, and this becomes a command."""
    commit = run.tags.get(COMMIT, "")
    return commit if _HASH.fullmatch(commit) else ""


def _values(base: RunRecord, run: RunRecord) -> Iterator[Difference]:
    callbacks = _sections(base), _sections(run)
    if callbacks[0] != callbacks[1]:
        yield Difference("option", "callbacks", *(", ".join(sorted(each)) for each in callbacks))
    for name in dict.fromkeys([*run.params, *base.params]):
        before, now = base.params.get(name, ""), run.params.get(name, "")
        option = _OPTION.fullmatch(name)
        of_one = option is not None and not all(option[1] in each for each in callbacks)
        if before != now and not of_one and not _only_numbered(name, before, now):
            yield _named(name, before, now)
    before, now = _commit(base), _commit(run)
    if before != now:
        yield Difference("commit", "source", before[:_SHORT], now[:_SHORT])


def _only_numbered(name: str, before: str, now: str) -> bool:
    """Whether Keras has just counted on: its second optimizer is `adam_1`."""
    bare = {re.sub(r"_\d+$", "", value) for value in (before, now)}
    return name == _NUMBERED and len(bare) == 1


def _named(name: str, before: str, now: str) -> Difference:
    found = _OPTION.fullmatch(name)
    if found is None:
        return Difference("parameter", name, before, now)
    section, option = found.groups()
    if option in _VERSIONS:
        whose = "" if section == FIRST else f" ({section})"
        return Difference("version", f"{_VERSIONS[option]}{whose}", before, now)
    kinds = {_BATCH: "batch", _BATCH_SIZE: "batch", _DECLARED: "declared"}
    return Difference(kinds.get(option, "option"), name, before, now)


def _sections(run: RunRecord) -> set[str]:
    """The callbacks of a run whose options are logged."""
    return {found[1] for found in map(_OPTION.fullmatch, run.params) if found}


def _options(run: RunRecord, option: str) -> dict[str, str]:
    """An option of each callback of a run, by the callback's section."""
    found = ((_OPTION.fullmatch(name), value) for name, value in run.params.items())
    return {match[1]: value for match, value in found if match and match[2] == option}


def _same_batch(base: RunRecord, run: RunRecord) -> str:
    before, now = _options(base, _BATCH), _options(run, _BATCH)
    shared = [section for section in now if section in before]
    if not shared:
        return "unknown: no fingerprint of a batch is logged in both"
    others = [section for section in shared if before[section] != now[section]]
    if not others:
        return f"yes: {', '.join(dict.fromkeys(now[section] for section in shared))}"
    told = (_told(section, before[section], now[section]) for section in others)
    return f"no: {'; '.join(told)}"


def _told(section: str, before: str, now: str) -> str:
    whose = "" if section == FIRST else f"{section}: "
    return f"{whose}{before} became {now}"


def _same_declared(base: RunRecord, run: RunRecord) -> str:
    before, now = (_patterns(_options(each, _DECLARED)) for each in (base, run))
    if before == now:
        return f"the same in both: {', '.join(now)}" if now else "nothing, in both"
    told = [
        f"only in {each.label}: {', '.join(path for path in here if path not in there)}"
        for each, here, there in ((base, before, now), (run, now, before))
        if set(here) - set(there)
    ]
    return "; ".join(told) or f"the same in both: {', '.join(now)}"


def _patterns(declared: Mapping[str, str]) -> list[str]:
    listed = (pattern for value in declared.values() for pattern in value.split(", "))
    return list(dict.fromkeys(filter(None, listed)))


def _same_code(base: RunRecord, run: RunRecord) -> str:
    before, now = _commit(base), _commit(run)
    if not before or not now:
        missing = " and ".join(each.label for each in (base, run) if not _commit(each))
        return f"unknown: MLflow knows no commit of {missing}"
    if before == now:
        return f"the same commit: {now[:_SHORT]}"
    return f"{before[:_SHORT]} became {now[:_SHORT]}"
