"""What counts as a batch: what `fit` takes, and nothing that it takes is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import tensorflow as tf

from tfcheck.errors import BatchError
from tfcheck.trace.batch import first_batch


def ones(samples: int) -> np.ndarray:
    """An array of so many samples."""
    return np.ones((samples, 3), "float32")


UNEVEN: dict[str, Any] = {
    "unlabelled and labelled": ((ones(8), ones(8)), (ones(4), ones(4))),
    "inputs of two lengths": ((ones(8), ones(4)), ones(4)),
    "one target for all": (ones(8), ones(1)),
    "labels for some": (ones(8), {"labels": ones(3)}),
    "more parts than three": (ones(8), ones(4), ones(2), ones(1)),
    "nothing labelled": (ones(8), {"labels": ones(0)}),
}


@pytest.mark.parametrize("data", UNEVEN.values(), ids=UNEVEN)
def test_what_a_dataset_yields_is_legal(data: Any) -> None:
    """`fit` passes it on to the step as it is, and so does a check; its inputs are counted."""
    batch = first_batch(tf.data.Dataset.from_tensors(data))
    assert batch.size == 8
    assert [len(leaf) for leaf in batch.tensors] == [len(leaf) for leaf in tf.nest.flatten(data)]


IN_PARTS = ["unlabelled and labelled", "inputs of two lengths", "labels for some"]


@pytest.mark.parametrize("name", IN_PARTS)
def test_arrays_in_parts_stand_for_what_a_dataset_yields(name: str) -> None:
    """Parts of several lengths, given as arrays, are a matter of the user's own step."""
    assert first_batch(*UNEVEN[name]).size == 8


@pytest.mark.parametrize(
    ("arrays", "shapes"),
    [
        ((ones(8), ones(7)), "x (8, 3), y (7, 3)"),
        ((ones(8), ones(8), np.ones(7)), "x (8, 3), y (8, 3), sample_weight (7,)"),
        (({"a": ones(8), "b": ones(8)}, ones(7)), "x (8, 3), x (8, 3), y (7, 3)"),
        ((ones(8), [ones(8), ones(8)], np.ones(7)), "x (8, 3), y (8, 3), y (8, 3), sample_weig"),
    ],
)
def test_targets_that_do_not_fit_their_inputs(arrays: Any, shapes: str) -> None:
    """Where `fit` refuses arrays and nothing else can be meant, so does a check."""
    with pytest.raises(BatchError, match="must have the same number of samples") as caught:
        first_batch(*arrays)
    assert f"Received: {shapes}" in str(caught.value)


def test_nothing_at_all() -> None:
    """A batch without any sample is refused, in whatever form."""
    nothing = ones(0)
    for given in (nothing, (nothing, nothing), tf.data.Dataset.from_tensors((nothing, nothing))):
        with pytest.raises(BatchError, match="at least one sample"):
            first_batch(given)
