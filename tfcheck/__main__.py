"""`python -m tfcheck` is the command `tfcheck`."""

from tfcheck.scripts.cli import main

if __name__ == "__main__":
    main(prog_name="python -m tfcheck")
