"""The command line: up, down, status, prepare, tools."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from cluster import local
from cluster.commands import ClusterError
from cluster.ownership import Owner, Use
from cluster.places import KUBECONFIG, REGISTRY
from cluster.progress import Progress
from cluster.tools import tool, tool_names


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command; ends the program with status 1 and a sentence when it fails."""
    chosen = _parser().parse_args(arguments)
    progress = Progress(quiet=chosen.quiet)
    command: Callable[[argparse.Namespace, Progress], None] = chosen.run
    try:
        command(chosen, progress)
    except ClusterError as failed:
        sys.exit(f"error: {failed}")
    except KeyboardInterrupt:
        sys.exit("interrupted: `python -m cluster down` removes what was started")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cluster", description="A real Kubernetes on this machine, for tests."
    )
    parser.add_argument("--quiet", action="store_true", help="no progress lines")
    commands = parser.add_subparsers(required=True)
    up = commands.add_parser("up", help="start the cluster, or what is missing of it")
    up.add_argument(
        "--nodes", type=int, choices=range(4), default=3, help="how many nodes (0: control plane only)"
    )
    up.set_defaults(run=_up)
    down = commands.add_parser("down", help="remove every trace of the cluster")
    down.add_argument(
        "--force", action="store_true", help="even one that is in use, or that another working tree started"
    )
    down.set_defaults(run=_down)
    commands.add_parser("status", help="say what runs").set_defaults(run=_status)
    commands.add_parser("logs", help="print the end of every log").set_defaults(run=_logs)
    prepare = commands.add_parser("prepare", help="install packages and build programs, start nothing")
    prepare.set_defaults(run=_prepare)
    tools = commands.add_parser("tools", help="print the path of a program, built first if need be")
    tools.add_argument("name", nargs="?", help=", ".join(tool_names()))
    tools.set_defaults(run=_tools)
    return parser


def _up(chosen: argparse.Namespace, progress: Progress) -> None:
    owner = local.up(chosen.nodes, progress)
    progress.say(
        f"up: the registry is {REGISTRY} for nodes and pods, 127.0.0.1:{owner.registry_port} on this host"
    )
    _print_environment(owner)


def _print_environment(owner: Owner) -> None:
    print(f"export KUBECONFIG={KUBECONFIG}")
    print(f"export EDGE_REGISTRY={REGISTRY}")
    print(f"export EDGE_REGISTRY_ON_HOST=127.0.0.1:{owner.registry_port}")


def _down(chosen: argparse.Namespace, progress: Progress) -> None:
    use = Use()
    try:
        if not chosen.force:
            use.refuse_others()
        local.down(progress, force=chosen.force)
    finally:
        use.end()


def _status(_: argparse.Namespace, __: Progress) -> None:
    now = local.status()
    if now.owner is None:
        sys.exit("no local cluster runs on this machine")
    print(f"# owner: {now.owner.checkout}, since {now.owner.since}")
    for name, alive in now.programs.items():
        print(f"# {'runs ' if alive else 'ENDED'} {name}")
    _print_environment(now.owner)


def _logs(_: argparse.Namespace, __: Progress) -> None:
    print(local.explain())


def _prepare(_: argparse.Namespace, progress: Progress) -> None:
    local.prepare(progress, extras=True)


def _tools(chosen: argparse.Namespace, progress: Progress) -> None:
    for name in [chosen.name] if chosen.name else tool_names():
        print(tool(name, progress))
