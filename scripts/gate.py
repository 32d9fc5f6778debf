"""`tfcheck gate`: may what a run has trained be released? The exit code is the answer."""

from __future__ import annotations

from typing import Any

import click

from tfcheck.scripts.stores import read_store, records_of, store_option

CLOSED = 1


def _epochs(_ctx: click.Context, _param: click.Parameter, text: str | None) -> tuple[int, ...]:
    """Whole numbers between commas."""
    numbers = [part.strip() for part in (text or "").split(",") if part.strip()]
    if not all(number.isdecimal() for number in numbers):
        raise click.BadParameter(f"{text!r} is no list of epochs. Write 1,5")
    return tuple(map(int, numbers))


@click.command()
@click.argument("subject", metavar="RUN|EXPERIMENT|MODEL")
@click.option(
    "--min-coverage",
    type=click.FloatRange(0, 1),
    default=0.9,
    show_default=True,
    help="The least share of the variables that the last check must have compared.",
)
@click.option("--allow-suspect", is_flag=True, help="Let suspect gradients pass.")
@click.option(
    "--require-epochs",
    callback=_epochs,
    metavar="1,5",
    help="There must be a check after each of these epochs that passed.",
)
@click.option("--no-tags", is_flag=True, help="Leave the version of a registered model as it is.")
@store_option
@click.pass_context
def gate(
    ctx: click.Context, /, subject: str, no_tags: bool, tracking_uri: str | None, **options: Any
) -> None:
    """Exit with 0 only if the gradient checks of a training passed, and are not older than it.

    A RUN is an id, the beginning of one, or a name; of an EXPERIMENT it is the newest run. A MODEL
    is models:/NAME/VERSION, models:/NAME@ALIAS or models:/NAME/latest; its version gets the
    outcome as tags. One sentence says why it does not pass.
    """
    from tfcheck.tracking import gate as judged
    from tfcheck.tracking.gating import note

    store = read_store(tracking_uri)
    with records_of(store) as uri:
        outcome = judged(subject, tags=False, tracking_uri=uri, **options)
    if not no_tags:
        note(subject, outcome, store.tracking_uri)
    click.echo(str(outcome), err=not outcome.passed)
    if not outcome.passed:
        ctx.exit(CLOSED)
