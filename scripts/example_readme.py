"""The README.md of the example store."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from itertools import groupby

from tfcheck.scripts.example_commits import AFTER, BEFORE, FILE
from tfcheck.scripts.examples import Example

_HEAD = """\
# Example trainings

An MLflow store with gradient checks of real trainings, to look around in:

```bash
tfcheck ui mlruns_example
```

What changed from run to run, and what differs between the last run and the last good one:

```bash
tfcheck history "{experiment}" --tracking-uri mlruns_example
tfcheck compare "{last}" --tracking-uri mlruns_example
```

Plain MLflow opens it from the folder that holds it:

```bash
MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri mlruns_example
```

The models learn from scikit-learn's handwritten digits. Every bug is planted, and is one that
people make. Every number was measured by `GradientCheck` in a training of a few seconds; nothing
was made up or edited.
"""

_COMMITS = """\
## The two commits

The last two runs are the same training with one file at two commits, `{before}` and `{after}`.
The script that makes this store commits that file twice to a repository of its own, trains from
each state, and sets the run's tag `mlflow.source.git.commit` to the commit, as MLflow does by
itself for a training's script in a repository. That repository is not kept, so `git diff` finds
neither commit here. This is what it would show:

```diff
{diff}
```

The other runs have no commit: that tag was removed, as it would name the commit of tfcheck.
"""

_MADE = """\
## How it was made

`python -m tfcheck.scripts.make_example_runs` trains everything anew, makes the paths of artifacts
relative, takes out the names of user and machine, gives pictures fewer colours, and writes this
file. All else is as MLflow wrote it.
"""


def readme(examples: Iterable[Example]) -> str:
    """What each run shows, how to open the store, and how it was made.

    Args:
        examples: the trainings, in their order.
    """
    trained = list(examples)
    last = trained[-1]
    parts = [_HEAD.format(experiment=last.experiment, last=last.name)]
    for experiment, runs in groupby(trained, lambda example: example.experiment):
        parts.append(_section(experiment, list(runs)))
    before, after = (example.commit[:7] for example in trained if example.commit)
    parts.append(_COMMITS.format(before=before, after=after, diff=_difference()))
    parts.append(_MADE)
    return "\n".join(parts)


def _section(experiment: str, runs: Sequence[Example]) -> str:
    rows = [f"| {run.name} | {run.note} |" for run in runs]
    return "\n".join([f"## {experiment}", "", "| run | what it shows |", "|---|---|", *rows, ""])


def _difference() -> str:
    lines = difflib.unified_diff(
        BEFORE.splitlines(), AFTER.splitlines(), f"a/{FILE}", f"b/{FILE}", lineterm=""
    )
    return "\n".join(lines)
