"""`make demo`: show the main job on a real cluster, checking every claim."""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from cluster.commands import ClusterError
from cluster.fixture import open_cluster
from demo.report import ClaimBroken, Report
from demo.site import Site, build_images
from demo.story import STEPS, Story

WANTED = {"pods", "cut", "arm64", "registry", "npu"}


def main() -> int:
    """Run the demo; the exit status is not 0 if a claim does not hold."""
    parser = argparse.ArgumentParser(prog="demo", description="Show the main job on a real cluster.")
    parser.add_argument("--down", action="store_true", help="take the cluster down at the end")
    options = parser.parse_args()
    report = Report(STEPS + 2)
    try:
        _run(report, take_down=options.down)
    except ClaimBroken as broken:
        report.say(f"\nA claim does not hold: {broken}")
        return 1
    except KeyboardInterrupt:
        report.say("\nInterrupted: what the demo started is gone.")
        return 130
    except ClusterError as error:
        report.say(f"\nThe cluster gave up: {error}")
        return 1
    return 0


def _run(report: Report, *, take_down: bool) -> None:
    with report.step("start a real Kubernetes: two amd64 nodes, one arm64, one accelerator"):
        cluster = open_cluster(WANTED)
    with cluster, tempfile.TemporaryDirectory() as folder:
        with report.step("build the images for amd64 and arm64 and push them") as lines:
            images = build_images(cluster)
            lines += [f"{name}: {image}" for name, image in sorted(images.items())]
        Story(Site(cluster, images), report, Path(folder)).run()
        report.say(f"\nEvery claim held. {report.elapsed:.0f} s in all.")
        if not take_down:
            cluster.keep()
            report.say(
                "\nThe cluster stays up. Try next:\n"
                f"  export KUBECONFIG={cluster.kubeconfig}\n"
                "  kubectl get em -n plant-a -o wide\n"
                "  kubectl describe em line-orientation -n plant-a\n"
                "  kubectl get nodes,pods -A -o wide\n"
                "  make cluster-down      # removes every trace"
            )


if __name__ == "__main__":
    sys.exit(main())
