"""The benchmark, `python -m tfcheck.scripts.bench`: tfcheck and its peers, side by side."""
