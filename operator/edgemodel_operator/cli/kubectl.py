"""`kubectl edgemodel`: what a person asks of a cluster. kubectl runs the program of this name from the PATH
(https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/)."""

from __future__ import annotations

from importlib import import_module

import click
from typing_extensions import override

_COMMANDS = {
    "verify": ("kubectl_verify", "verify_model"),
    "audit": ("kubectl_audit", "audit_image"),
}
"""Commands that are loaded by name, so that help comes without the libraries of any."""


class _Commands(click.Group):
    """The commands, each of which is imported when it is asked for."""

    @override
    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(_COMMANDS)

    @override
    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        command: click.Command = getattr(import_module(f"edgemodel_operator.cli.{module}"), name)
        return command


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
def plugin() -> None:
    """Ask a cluster about its models: who vouches for them, and what runs where."""


def main() -> None:
    """Run the plugin under the name by which people call it."""
    plugin(prog_name="kubectl edgemodel")


if __name__ == "__main__":
    main()
