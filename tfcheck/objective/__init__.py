"""The step as pure functions of a point: losses and gradients, anywhere, at any time.

In: a `TracedStep`, or a step that must run eagerly. Out: an `Objective` (a `GraphObjective`, or an
`EagerObjective`) with its `StepFacts` and `Parameter`s, and a `Base`, what it gives at a point.

May import: `promote`, `units`, `trace`, `unchanged`, `graph`, `measure`; `deadline`, `errors`,
`formats`, `internals`, `variables`.
"""
