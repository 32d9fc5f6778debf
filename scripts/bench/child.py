"""The measuring process: `python -m tfcheck.scripts.bench.child MODULE:FUNCTION ARGUMENTS`."""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Iterator

from tfcheck.scripts.bench.processes import MARK, Answer, CannotMeasureError


def main() -> None:
    """Call the function with the arguments, a JSON object, and print its answer.

    A generator's answers are printed as they come, so that those before a timeout are not lost.
    """
    task, arguments = sys.argv[1:]
    module, _, name = task.partition(":")
    try:
        measure = getattr(importlib.import_module(f"{__package__}.{module}"), name)
        answer: Answer | Iterator[Answer] = measure(**json.loads(arguments))
        for part in answer if isinstance(answer, Iterator) else (answer,):
            _say(part)
    except CannotMeasureError as why:
        _say({"note": str(why)})


def _say(answer: Answer) -> None:
    sys.stdout.write(f"\n{MARK}{json.dumps(answer)}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
