"""The measuring process: `python -m tfcheck.scripts.bench.child MODULE:FUNCTION ARGUMENTS`."""

from __future__ import annotations

import importlib
import json
import sys

from tfcheck.scripts.bench.processes import MARK, Answer, CannotMeasureError


def main() -> None:
    """Call the function with the arguments, a JSON object, and print its answer."""
    task, arguments = sys.argv[1:]
    module, _, name = task.partition(":")
    try:
        measure = getattr(importlib.import_module(f"{__package__}.{module}"), name)
        answer: Answer = measure(**json.loads(arguments))
    except CannotMeasureError as why:
        answer = {"note": str(why)}
    sys.stdout.write(f"\n{MARK}{json.dumps(answer)}\n")


if __name__ == "__main__":
    main()
