"""Showing reports: on the console, as HTML, as plots.

In: an `Outcome`, or several. Out: text, pages, figures, and the line that tells of progress. Reads
outcomes, and knows nothing else: no TensorFlow. The one home of rich, jinja2 and matplotlib.

May import: `runs`, `report`, `judge`; `settings`, `_version`, `errors`, `progress`.
"""
