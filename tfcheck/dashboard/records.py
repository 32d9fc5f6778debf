"""The records of a store of files: MLflow keeps one in each meta.yaml."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import yaml

_ARTIFACT_PATHS = ("artifact_uri", "artifact_location", "storage_location", "source")
"""What may say in a record where artifacts are."""


@contextlib.contextmanager
def changed_record(meta: Path) -> Iterator[dict[str, Any]]:
    """A record as a dictionary, which is written as the block leaves it.

    Args:
        meta: the meta.yaml. One that is no record is left as it is.
    """
    try:
        record = yaml.load(meta.read_text(encoding="utf-8"), _Loader)
    except yaml.YAMLError:
        record = None
    if not isinstance(record, dict):
        yield {}
        return
    before = dict(record)
    yield record
    if record != before:
        text = yaml.dump(record, Dumper=_Dumper, allow_unicode=True, sort_keys=False)
        meta.write_text(text, encoding="utf-8")


_Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_Dumper = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""Those in C, where they were built, as MLflow's own: a store may have thousands of records."""


def change_artifact_paths(record: dict[str, Any], change: Callable[[str], str | None]) -> None:
    """Change the artifact paths in a record.

    Args:
        record: the record.
        change: gives the new path for an old one; None leaves it.
    """
    for name in _ARTIFACT_PATHS:
        if (value := record.get(name)) and (new := change(str(value))) is not None:
            record[name] = new
