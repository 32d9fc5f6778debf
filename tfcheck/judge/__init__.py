"""From measurements to verdicts: the bands of the score, and what is told apart from a bug.

In: a `Measurement`, the thresholds, how loud the loss's gradients are. Out: a `Judgement`, a
verdict with its reason and a sentence. NumPy alone.

May import: `measure`; `errors`.
"""
