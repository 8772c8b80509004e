"""`edgemodel`: commands for people."""

from __future__ import annotations

from importlib import import_module

import click
from typing_extensions import override

_COMMANDS = {
    "build": "build_command",
    "inspect": "inspect_command",
    "keygen": "keygen_command",
    "sign": "sign_command",
    "verify": "verify_command",
}
"""Commands that are loaded by name, so that one does not load the libraries of another."""


class _Commands(click.Group):
    """The commands, each of which is imported when it is asked for."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_COMMANDS})

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return super().get_command(ctx, cmd_name)
        name = _COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"edgemodel_operator.cli.{name}"), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Work with the EdgeModel operator."""
