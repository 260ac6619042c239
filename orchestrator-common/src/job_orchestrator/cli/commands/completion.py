"""Command completion: the script that makes a shell complete the arguments of ``jo``."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command()
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes jo in a shell: bash, zsh or fish.

    Commands, options, services and job ids are completed. To try it:
    eval "$(jo completion bash)"
    """
    script = get_completion_class(shell)
    if script is None:  # click has all of SHELLS
        raise click.UsageError(f"There is no completion for {shell}.")
    click.echo(script(context.find_root().command, {}, "jo", "_JO_COMPLETE").source())
