"""Where it is wrong: the culprit, the operation that blocks a gradient, the line of code.

In: an examination with its findings, the step, and what the user declared. Out: culprits, the
variables that they explain, and notes with the lines of the user's code.

May import: `examine`, `objective`, `report`, `units`, `trace`, `judge`, `graph`, `measure`;
`deadline`, `errors`, `internals`, `progress`, `variables`.
"""
