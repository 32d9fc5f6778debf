"""A loss, divided into its units (layer calls, losses), all of them computed in one graph.

In: a promoted graph, and where a tape's gradients cross from unit to unit. Out: `Apart`, functions
that move every unit by itself, and `ApartAt`, the same at a point.

May import: `trace`, `graph`, `measure`; `deadline`.
"""
