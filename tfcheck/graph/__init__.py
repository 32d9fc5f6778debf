"""Graphs of TensorFlow as data: `GraphDef`s, before anything is known of models.

In: the `GraphDef` of a function, or names of operations in it. Out: nodes, what depends on what,
excerpts that can be called, and the units that a traced step divides into.

May import: `internals`, `errors`.
"""
