"""One loss at many places in one evaluation: along lines, and with single entries perturbed.

In: a step and a batch, or an `Objective` and a point. Out: `Around`, from which values along
directions and of perturbed entries can be had in one graph call; `Prepared` keeps one for each
kind of batch.

May import: `objective`, `units`, `graph`, `measure`; `variables`.
"""
