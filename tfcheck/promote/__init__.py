"""The traced graph in float64: variables become values, floats become float64.

In: a `GraphDef` and which of its inputs are variables. Out: a pure graph of plain tensors
(`PureGraph`), and which operations had to stay in their own precision.

May import: `graph`; `errors`, `formats`, `internals`.
"""
