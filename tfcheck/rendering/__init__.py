"""Showing reports: on the console, as HTML, as plots. Reads reports, knows nothing else."""
