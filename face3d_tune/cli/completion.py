"""`face3d-tune completion`: the shell's Tab key."""

import click
from click.shell_completion import get_completion_class

from face3d_tune.cli.base import Choice, Command, example

_VARIABLE = "_FACE3D_TUNE_COMPLETE"  # where click looks


@click.command(cls=Command, epilog=example("face3d-tune completion bash"))
@click.argument("shell", type=Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a script that teaches your shell the Tab key."""
    kind = get_completion_class(shell)
    assert kind is not None, "the choices above are click's own"
    click.echo(kind(context.find_root().command, {}, "face3d-tune", _VARIABLE).source())
