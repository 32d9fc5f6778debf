"""Findings into one report: the only place where they are put together.

In: findings, and what the later stages add to them, by variable (`Additions`). Out: a
`GradientReport`.

May import: `training`, `examine`, `objective`, `report`, `judge`, `measure`; `gradient_report`,
`errors`, `variables`.
"""
