"""What can go wrong with a node's link, done to the link itself: cut, slow, lossy. Power is in `nodes`."""

from __future__ import annotations

from cluster.commands import try_run
from cluster.namespaces import CONTROL_PLANE, holder, inside, run_inside
from cluster.places import NodePlan

_CHAIN = "EDGEMODEL-LOSS"


def cut(node: NodePlan) -> None:
    """Pull the node's network cable; what runs on the node goes on running."""
    run_inside(CONTROL_PLANE, ["ip", "link", "set", node.cable, "down"])


def mend(node: NodePlan) -> None:
    """Plug the cable in again and take away every other fault of the link; a healthy link stays as it is."""
    if holder(node.name) is None:
        return
    run_inside(CONTROL_PLANE, ["ip", "link", "set", node.cable, "up"])
    throttle(node, None)
    lose(node, 0)


def throttle(node: NodePlan, kbit: int | None) -> None:
    """Limit the link to so many kilobits per second in each direction; None takes the limit away."""
    for machine, device in ((CONTROL_PLANE, node.cable), (node.name, "eth0")):
        if kbit is None:
            try_run(inside(machine, ["tc", "qdisc", "del", "dev", device, "root"]))
        else:
            shape = f"tc qdisc replace dev {device} root tbf rate {kbit}kbit burst 16kb latency 400ms"
            run_inside(machine, shape.split())


def lose(node: NodePlan, probability: float) -> None:
    """Drop that share (0 to 1) of the packets that reach the node; 0 drops none."""
    table = ["iptables", "-w", "-t", "mangle"]
    for rule in (["-D", "PREROUTING", "-i", "eth0", "-j", _CHAIN], ["-F", _CHAIN], ["-X", _CHAIN]):
        try_run(inside(node.name, [*table, *rule]))
    if probability <= 0:
        return
    match = ["-m", "statistic", "--mode", "random", "--probability", f"{probability:.4f}"]
    for rule in (
        ["-N", _CHAIN],
        ["-A", _CHAIN, *match, "-j", "DROP"],
        ["-I", "PREROUTING", "-i", "eth0", "-j", _CHAIN],
    ):
        run_inside(node.name, [*table, *rule])
