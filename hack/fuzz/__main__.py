"""``python -m fuzz``: run the targets, all or the named ones; ``--help`` lists the options."""

import argparse
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from fuzz.engine import Outcome, run
from fuzz.groups import GROUPS, Group

_HERE = Path(__file__).parent


def main() -> int:
    """Run, and return 1 if a target failed at an input, which is kept in a file."""
    options = _parse_options()
    group: Group = GROUPS[options.group]
    chosen: Sequence[str] = options.targets or list(group.targets)
    total = sum(group.share(name) for name in chosen)
    failed = False
    for name in chosen:
        count = round(options.count * group.share(name) / total)
        if options.guided:
            failed |= not _run_guided(name, count, options)
        else:
            failed |= not _run(name, count, options)
    return int(failed)


def _parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m fuzz", description="Feed noise to what strangers can reach."
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="default: all of the group")
    parser.add_argument("--group", choices=GROUPS, default="server", help="default: %(default)s")
    parser.add_argument("--count", type=int, default=1_000_000, help="inputs in all (default: %(default)s)")
    parser.add_argument("--seconds", type=int, default=None, metavar="S", help="per target, at most")
    parser.add_argument("--seed", type=int, default=1, help="other inputs (default: %(default)s)")
    parser.add_argument("--keep", type=Path, default=Path("/tmp"), help="folder for an input that failed")
    parser.add_argument("--guided", action="store_true", help="let coverage lead: slower, and sees more")
    options = parser.parse_args()
    if options.guided and options.group != "server":
        parser.error("coverage leads through the inference server alone: leave --guided out")
    targets = GROUPS[options.group].targets
    unknown = sorted(set(options.targets) - set(targets))
    if unknown:
        parser.error(f"there is no target {unknown[0]}, only {', '.join(targets)}")
    return options


def _run(name: str, count: int, options: argparse.Namespace) -> bool:
    """Fuzz with the engine of this package; says whether all went well."""
    seconds = float("inf") if options.seconds is None else options.seconds
    target = GROUPS[options.group].targets[name]()
    outcome = run(target, count=count, seed=options.seed, seconds=seconds)
    print(
        f"{name:<13} {outcome.inputs:>9,} inputs  {len(outcome.kinds):>5} kinds of outcomes"
        f"  {outcome.seconds:7.1f} s  {'FAILED' if outcome.finding else 'ok'}",
        flush=True,
    )
    return _report(name, outcome, options.keep)


def _report(name: str, outcome: Outcome, folder: Path) -> bool:
    """Show a failure and keep its input; says whether there was none."""
    finding = outcome.finding
    if finding is None:
        return True
    path = folder / f"{name}-{sha256(finding.data).hexdigest()[:12]}.bin"
    path.write_bytes(finding.data)
    traceback.print_exception(finding.error)
    print(f"the input is in {path}: {finding.data[:400]!r}")
    return False


def _run_guided(name: str, count: int, options: argparse.Namespace) -> bool:
    """Fuzz with atheris, in its own environment; says whether all went well."""
    with tempfile.TemporaryDirectory() as folder:
        for place, seed in enumerate(GROUPS[options.group].targets[name]().seeds):
            (Path(folder) / f"seed-{place}").write_bytes(seed)
        command = [
            "uv",
            "run",
            "--frozen",
            "--project",
            str(_HERE / "guided"),
            "python",
            "-m",
            "fuzz.guided",
            name,
        ]
        command += [f"-runs={count}", f"-seed={options.seed}", f"-artifact_prefix={options.keep}/{name}-"]
        if options.seconds is not None:
            command.append(f"-max_total_time={options.seconds}")
        # The project's own environment must not be taken for atheris'.
        environment = {key: value for key, value in os.environ.items() if key != "VIRTUAL_ENV"}
        environment["PYTHONPATH"] = str(_HERE.parent)
        done = subprocess.run(
            [*command, "-verbosity=0", "-print_final_stats=1", folder], env=environment, check=False
        )
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
