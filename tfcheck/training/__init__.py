"""What training does with a right gradient: optimizer, compiled loss, precision, XLA, eager runs.

In: an objective, a point and the findings there. Out: objections (judgements by variable) and what
the report says of the step as it trains.

May import: `examine` and lower.
"""
