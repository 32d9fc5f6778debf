"""What was found, as frozen values, and as plain dictionaries.

In: rows with numbers and verdicts. Out: an `Outcome`, which knows nothing of how it was measured
and nothing of where it is shown. No TensorFlow.

May import: `judge`, `measure`; `settings`, `errors`.
"""
