"""An MLflow store, opened in the browser where its gradient checks are.

In: the folder or database of a store. Out: a copy of its records that can be looked at, and served.

May import: `tracking`; `errors`.
"""
