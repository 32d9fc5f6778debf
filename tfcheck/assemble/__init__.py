"""Findings into one report: the only place where they are put together.

In: findings, culprits, what training does, and notes. Out: a `GradientReport`.

May import: `examine`, `gradient_report` and lower.
"""
