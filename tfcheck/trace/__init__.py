"""The model's own training step, traced into a graph without being run, or run under observation.

In: a model, layer or loss, and one batch. Out: a `TracedStep`, a graph with a `Recording` of what
its tapes, optimizers and layers did, and what the step chooses to do besides.

May import: `unchanged`, `graph`; `errors`, `internals`, `variables`.
"""
