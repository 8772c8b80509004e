"""The guard against sources at forbidden addresses."""

from __future__ import annotations

import pytest

from edgemodel_operator.build.addresses import AddressPolicy

PLANT = AddressPolicy.parse(denied=["10.96.0.0/12", "fd00:10:96::/112"], allowed=["10.96.0.7/32"])


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("127.0.0.1", "loopback"),
        ("127.8.8.8", "loopback"),
        ("::1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("fe80::1%eth0", "link-local"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("0.0.0.0", "unspecified"),
        ("0.1.2.3", "unspecified"),
        ("::", "unspecified"),
        ("255.255.255.255", "reserved"),
        ("fd00:ec2::254", "metadata"),
        ("fd20:ce::254", "metadata"),
        ("100.100.100.200", "metadata"),
        ("168.63.129.16", "metadata"),
        ("192.0.0.192", "metadata"),
        ("::ffff:168.63.129.16", "metadata"),
        ("::ffff:127.0.0.1", "loopback"),
        ("::ffff:169.254.169.254", "link-local"),
        ("::ffff:0.0.0.0", "unspecified"),
        ("64:ff9b::7f00:1", "loopback"),
        ("2002:a9fe:a9fe::1", "link-local"),
        ("::7f00:1", "loopback"),
        ("::ffff:0:7f00:1", "loopback"),
        ("64:ff9b:1::a9fe:a9fe", "link-local"),
        ("2001:0:1234::8000:5601:5601", "link-local"),  # Teredo, for the client 169.254.169.254
        ("10.96.0.1", "configuration denies"),
        ("::ffff:10.96.0.1", "configuration denies"),
        ("fd00:10:96::a", "configuration denies"),
    ],
)
def test_forbidden(address: str, kind: str) -> None:
    objection = PLANT.objection(address)
    assert objection is not None
    assert kind in objection
    assert address in objection


@pytest.mark.parametrize(
    "address", ["10.0.0.5", "192.168.1.20", "172.16.3.4", "93.184.215.14", "fd12:3456::1", "2001:db8::1"]
)
def test_private_and_public_networks_are_allowed(address: str) -> None:
    assert PLANT.objection(address) is None


def test_one_server_of_a_denied_network_can_be_allowed() -> None:
    assert PLANT.objection("10.96.0.7") is None
    assert PLANT.objection("10.96.0.8") is not None


def test_a_network_with_host_bits_is_refused() -> None:
    with pytest.raises(ValueError, match="host bits"):
        AddressPolicy.parse(denied=["10.0.0.1/8"])
