"""The base of every command: its help, and its answer to a mistyped option or command.

Commands import the rest of the package inside their functions, so that `--help` does not pay for torch.
"""

import functools
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import click

from face3d_tune.cli.language import LANGUAGES, VARIABLE
from face3d_tune.errors import did_you_mean

_HEADINGS = "option_headings"  # attribute of a command's function: name of an option's parameter to its heading


def example(text: str) -> str:
    """Return an epilog that click prints as typed: a runnable example below the options."""
    return "\b\nExample:\n" + "\n".join(f"  {line}" for line in text.strip().splitlines())


def option_group(
    heading: str, kind: type[Any], *options: Callable[..., Any]
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Show `options` under a heading of their own, and pass their values to the command as one record.

    The fields of `kind` are the options' parameters; the command takes the record as `heading` in lower case.
    """
    names = [field.name for field in fields(kind)]

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def command(**values: Any) -> Any:
            record = kind(**{name: values.pop(name) for name in names})
            return function(**{heading.lower(): record}, **values)

        vars(command)[_HEADINGS] = dict.fromkeys(names, heading) | vars(function).get(_HEADINGS, {})
        for option in reversed(options):
            option(command)
        return command

    return decorate


class Command(click.Command):
    """A command that shows its options in groups, if it has any, ends its help with an example and knows
    `--lang` and `--debug`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.context_settings.setdefault("help_option_names", ["-h", "--help"])
        _add_language(self)
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

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write each option group under its heading; the other options come last, under "Options"."""
        headings = getattr(self.callback, _HEADINGS, {})
        groups: dict[str, list[tuple[str, str]]] = {heading: [] for heading in (*headings.values(), "Options")}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record and isinstance(param, click.Option):
                groups[headings.get(param.name, "Options")].append(record)
        for heading, records in groups.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)


def _add_language(command: click.Command) -> None:
    """Let a command take `--lang`, which `language.choose` has read by then; `report` has one of its own."""
    if not any("--lang" in param.opts for param in command.params):
        command.params.append(
            click.Option(
                ["--lang"],
                type=click.Choice(LANGUAGES),
                envvar=VARIABLE,
                show_envvar=True,
                expose_value=False,
                help="Language of results, notes and errors; help is English.  [default: from the locale]",
            )
        )


def _remember_debug(context: click.Context, _: click.Parameter, value: bool) -> None:
    if value:
        context.find_root().ensure_object(dict)["debug"] = True


class Group(click.Group):
    """A group of commands that suggests the nearest one for a mistyped name."""

    command_class = Command

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _add_language(self)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the commands in the order of use, not of the alphabet."""
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
