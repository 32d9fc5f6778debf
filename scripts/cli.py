"""The command line, `tfcheck`: its subcommands, and what their errors become.

Nothing heavy is imported here: `tfcheck --help` answers at once.
"""

from __future__ import annotations

import sys
import traceback
from typing import Any

import click

from tfcheck._version import __version__
from tfcheck.errors import TfcheckError
from tfcheck.scripts.audit import TRACEBACK, audit
from tfcheck.scripts.completion import completion
from tfcheck.scripts.demo import demo
from tfcheck.scripts.gate import gate
from tfcheck.scripts.past import compare, history
from tfcheck.scripts.surroundings import encode_what_can_be
from tfcheck.scripts.sync import sync
from tfcheck.scripts.ui import ui

REFUSED = 2  # click's own code for wrong usage
CRASHED = 70  # EX_SOFTWARE. Python's own 1 would read as a wrong gradient.
INTERRUPTED = 130


class Refused(click.ClickException):
    """What cannot be done as asked, in one sentence."""

    exit_code = REFUSED


class Commands(click.Group):
    """The one place where errors become exit codes.

    What tfcheck refuses is one sentence without a traceback. Only a mistake in tfcheck itself
    shows one.
    """

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run the command line, whatever the terminal's encoding."""
        encode_what_can_be()
        return super().main(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except TfcheckError as error:
            if ctx.meta.get(TRACEBACK):
                traceback.print_exception(error.__cause__ or error)
                click.echo(err=True)
            raise Refused(str(error)) from error
        except KeyboardInterrupt:
            click.echo("Stopped.", err=True)
            sys.exit(INTERRUPTED)
        except (click.ClickException, click.Abort, click.exceptions.Exit, BrokenPipeError):
            raise  # click knows what to do
        except Exception:  # noqa: BLE001 - shown whole, with an exit code of its own
            traceback.print_exc()
            click.echo("\nThis is most likely a mistake in tfcheck. Please report it.", err=True)
            sys.exit(CRASHED)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="tfcheck", message="%(prog)s %(version)s")
def main() -> None:
    """Gradient checking for Keras 3 models on TensorFlow.

    Is the backward pass right, and if not, which layer is wrong?

    Start with: tfcheck demo
    """


for command in (demo, audit, ui, history, compare, gate, sync, completion):
    main.add_command(command)

if __name__ == "__main__":
    main()
