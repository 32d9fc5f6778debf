"""What runs say of their gradient checks, compared, and judged before a model is released.

In: runs as records, read back from a store. Out: what regressed and what was fixed, since when;
what else differs; and whether a model may pass. No MLflow, no TensorFlow.

May import: `judge`.
"""
