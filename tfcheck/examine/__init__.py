"""One check at one point: every variable measured and judged, unit by unit or through the loss.

In: the losses around a point, and the settings. Out: a `Finding` for each variable.

May import: `evaluate`, `objective`, `units`, `judge`, `report` and lower.
"""
