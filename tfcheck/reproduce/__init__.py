"""A unit test of a culprit, made of what the culprit was given when it was found.

In: a step, its batch, and the culprits' paths. Out: a `Case` each, which is tried out, and written
as a pytest file, when it is first asked for; `KnownCases` keeps them from check to check.

May import: `objective`, `rendering`, `report`, `trace`, `judge`, `unchanged`, `graph`;
`settings`, `deadline`, `_version`, `errors`, `internals`, `variables`.
"""
