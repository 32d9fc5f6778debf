"""The model's own training step, run once under observation and traced into a graph.

In: a model, layer or loss, and one batch. Out: a `TracedStep`, a graph with a `Recording` of what
its tapes, optimizers and layers did, and what the step chooses to do besides.

May import: `graph`, `measure` (directions alone), `unchanged` and the ground floor.
"""
