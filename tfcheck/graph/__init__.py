"""Graphs of TensorFlow as data: nodes, excerpts, and how one divides into units.

In: the graph of a function; for its division, which operations each layer call made. Out: nodes,
what depends on what, excerpts that can be called, and the units of a traced step.

May import: `formats`, `internals`.
"""
