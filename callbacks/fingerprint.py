"""A batch's fingerprint: the same for the same values, whoever holds them."""

from __future__ import annotations

import hashlib

from tfcheck.trace.batch import Batch

_LENGTH = 12


def fingerprint(batch: Batch) -> str:
    """Twelve hexadecimal digits that tell one batch from another."""
    digest = hashlib.sha256()
    for tensor in batch.tensors:
        values = tensor.numpy()
        digest.update(f"{values.dtype}{values.shape}".encode())
        # An array of strings holds addresses.
        digest.update(
            repr(values.tolist()).encode() if values.dtype == object else values.tobytes()
        )
    return digest.hexdigest()[:_LENGTH]
