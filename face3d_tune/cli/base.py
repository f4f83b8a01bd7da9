"""What every command is made of: how it shows its help, and how it answers a mistake.

Commands import the rest of the package inside their functions, so that `--help` does not pay for torch.
"""

from difflib import get_close_matches
from typing import Any

import click


def example(text: str) -> str:
    """An epilog that click prints as typed: a runnable example below the options."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in text.strip().splitlines())


class Command(click.Command):
    """A command whose help ends with an example and that knows `--debug`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context_settings.setdefault("help_option_names", ["-h", "--help"])
        self.params.append(
            click.Option(
                ["--debug"],
                is_flag=True,
                expose_value=False,
                is_eager=True,
                callback=_remember_debug,
                help="Show the traceback of an error.",
            )
        )

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, and remember its name for the hint of an error."""
        ctx.find_root().ensure_object(dict)["command"] = ctx.command_path
        return super().invoke(ctx)


def _remember_debug(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.find_root().ensure_object(dict)["debug"] = True


class Group(click.Group):
    """A group of commands that answers a mistyped one with the nearest."""

    command_class = Command

    def list_commands(self, ctx: click.Context) -> list[str]:
        """In the order in which they are used, not of the alphabet."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command that `args` begin with."""
        name = args[0]
        if not name.startswith("-") and self.get_command(ctx, name) is None:
            raise click.UsageError(
                f"{ctx.command_path}: no command named {name!r}{did_you_mean(name, self.commands)}", ctx
            )
        return super().resolve_command(ctx, args)


def did_you_mean(word: str, known: Any) -> str:
    """`; did you mean 'run'?`, or nothing if nothing is near."""
    near = get_close_matches(word, list(known), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
