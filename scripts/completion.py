"""`tfcheck completion`: the script that has a shell complete what is typed."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    r"""Print the script with which SHELL completes tfcheck's commands and options.

    \b
      bash   eval "$(tfcheck completion bash)"    in ~/.bashrc
      zsh    eval "$(tfcheck completion zsh)"     in ~/.zshrc
      fish   tfcheck completion fish | source     in ~/.config/fish/config.fish
    """
    kind = get_completion_class(shell)
    if kind is not None:
        program = kind(ctx.find_root().command, {}, "tfcheck", "_TFCHECK_COMPLETE")
        click.echo(program.source())
