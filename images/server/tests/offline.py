"""Serves one model where there is no network but the loopback, and tells what the kernel was asked to send.

Run in a network namespace of its own. It prints a JSON object: by how much the kernel's counts of attempts
rose, less the connections that this program itself made to the server.
"""

import fcntl
import json
import socket
import struct
import sys
from pathlib import Path
from typing import Any

from serving import running_servers

_SET_FLAGS = 0x8914
_UP_AND_RUNNING = 0x1 | 0x40
OUTSIDE = ("192.0.2.1", 80)


def raise_loopback() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh", b"lo", _UP_AND_RUNNING).ljust(40, b"\0"))


def count_attempts() -> dict[str, int]:
    """Return how many connections were begun, datagrams sent, and destinations found to have no route."""
    lines = [line.split() for line in Path("/proc/net/snmp").read_text().splitlines()]
    counts = {
        head[0] + name: int(value)
        for head, values in zip(lines[::2], lines[1::2], strict=True)
        for name, value in zip(head[1:], values[1:], strict=True)
    }
    wanted = {name: counts[name] for name in ("Tcp:ActiveOpens", "Udp:OutDatagrams", "Ip:OutNoRoutes")}
    six = Path("/proc/net/snmp6")
    for name, value in (line.split() for line in six.read_text().splitlines()) if six.exists() else ():
        if name in ("Udp6OutDatagrams", "Ip6OutNoRoutes"):
            wanted[name] = int(value)
    return wanted


def ask_for_all(arguments: list[str]) -> None:
    """Start a server of one model, and have it do everything that it does for a client."""
    with running_servers() as start:
        server = start("--model", *arguments, "--grpc-port", 0, "--drain-seconds", 0)
        name = server.ask("GET", "/v2/models").json["models"][0]
        inputs: list[dict[str, Any]] = server.ask("GET", f"/v2/models/{name}").json["inputs"]
        entries = [
            {**entry, "shape": [1, *entry["shape"][1:]], "data": [0.0] * entry["shape"][1]}
            for entry in inputs
        ]
        reply = server.infer(name, {"inputs": entries})
        assert reply.status == 200, reply.body
        assert server.ask("GET", "/metrics").status == 200
        assert server.stop() == 0


def main() -> None:
    raise_loopback()
    own = 0

    def count(event: str, _: object) -> None:
        nonlocal own
        own += event == "socket.connect"

    sys.addaudithook(count)
    before = count_attempts()
    if sys.argv[1:] == ["reach-outside"]:
        with socket.socket() as tcp:
            tcp.connect_ex(OUTSIDE)
    else:
        ask_for_all(sys.argv[1:])
        before["Tcp:ActiveOpens"] += own
    print(json.dumps({name: value - before[name] for name, value in count_attempts().items()}))


if __name__ == "__main__":
    main()
