"""One check at one point: every variable measured and judged, unit by unit or through the loss.

`examination.py` is the walk over the variables; what it asks of each is in `obstacles.py`,
`from_units.py` and `whole_loss.py`, what it knows of the point in `point_facts.py` and
`loss_facts.py`.

In: the losses around a point, and the settings. Out: a `Finding` for each variable, which nothing
changes any more.

May import: `evaluate`, `objective`, `report`, `units`, `trace`, `judge`, `graph`, `measure`;
`settings`, `deadline`, `memory`, `errors`, `formats`, `progress`, `variables`.
"""
