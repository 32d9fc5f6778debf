"""The command line, `tfcheck`: see `tfcheck --help`."""
