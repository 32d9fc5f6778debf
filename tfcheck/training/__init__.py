"""What training does with a right gradient: optimizer, compiled loss, precision, XLA, eager runs.

In: a step at a point, and what is said of its variables so far. Out: objections (judgements by
variable), distances by variable, and what the report says of the step as it trains.

May import: `examine`, `objective`, `trace`, `judge`, `measure`; `prepared`, `errors`, `formats`.
"""
