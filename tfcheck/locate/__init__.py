"""Where it is wrong: the culprit, the operation that blocks a gradient, the line of code.

In: an examination with its findings. Out: culprits, the variables that they explain, and notes
with the lines of the user's code that variables are about.

May import: `examine` and lower.
"""
