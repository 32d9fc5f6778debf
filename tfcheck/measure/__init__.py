"""Slopes with error bars, of any function of numbers: what finite differences can know.

In: a loss as a function of displacements, and a gradient (`Target`). Out: measured slopes with
their error bars, and how far the gradient is from them (`Measurement`). NumPy alone: nothing here
knows a model or TensorFlow.

May import: nothing but itself.
"""
