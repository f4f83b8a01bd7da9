"""`face3d-tune completion`: Tab completion for the shell."""

import click
from click.shell_completion import get_completion_class

from face3d_tune.cli.base import Command, example
from face3d_tune.cli.option_types import Choice

_VARIABLE = "_FACE3D_TUNE_COMPLETE"  # the variable that click reads
_INSTALL = """\b
Add one line to the file that your shell reads when it starts:
  ~/.bashrc    eval "$(face3d-tune completion bash)"
  ~/.zshrc     eval "$(face3d-tune completion zsh)"
  config.fish  face3d-tune completion fish | source
  $PROFILE     face3d-tune completion powershell | Out-String | iex

"""


@click.command(cls=Command, epilog=_INSTALL + example("face3d-tune completion bash"))
@click.argument("shell", type=Choice(["bash", "zsh", "fish", "powershell"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print a completion script for your shell."""
    kind = get_completion_class(shell)
    assert kind is not None, "the choices above are click's own"
    click.echo(kind(context.find_root().command, {}, "face3d-tune", _VARIABLE).source())
