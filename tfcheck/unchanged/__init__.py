"""Doing no harm: whatever a trace or a run of a step touches is put back as it was.

In: the model and the code that is about to run. Out: context managers; after them, and after any
exception, everything that Python can reach is as before, in every thread.

May import: `errors`, `internals`, `variables`.
"""
