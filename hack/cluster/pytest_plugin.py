"""Pytest plugin: the `edge_cluster` fixture, and `needs(...)` that skips (or fails) what a cluster cannot do.

Load it in the top-level conftest: `pytest_plugins = ["cluster.pytest_plugin"]`.
"""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

from cluster.base import CAPABILITIES, Cluster
from cluster.commands import ClusterError
from cluster.fixture import open_cluster

_WANTED = pytest.StashKey[frozenset[str]]()
_OPENED = pytest.StashKey["Cluster | str"]()


def needed(item: pytest.Item) -> frozenset[str]:
    """Return the capabilities that a test's markers name."""
    return frozenset(str(name) for mark in item.iter_markers("needs") for name in mark.args)


def required() -> frozenset[str]:
    """Return the capabilities whose absence fails a test instead of skipping it (EDGE_REQUIRE)."""
    return frozenset(filter(None, os.environ.get("EDGE_REQUIRE", "").replace(" ", "").split(",")))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Add up what the tests that were selected need, so that no more of a cluster is started than that."""
    wanted: frozenset[str] = frozenset()
    for item in session.items:
        names = needed(item)
        unknown = names - CAPABILITIES
        if unknown:
            raise pytest.UsageError(f"{item.nodeid} needs {', '.join(sorted(unknown))}, which no cluster has")
        wanted |= names
    session.config.stash[_WANTED] = wanted


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test whose needs are not met; fail it when they are required."""
    names = needed(item)
    if not names:
        return
    cluster = _opened(item.config)
    missing = names if isinstance(cluster, str) else names - cluster.caps
    if not missing:
        return
    where = (
        cluster
        if isinstance(cluster, str)
        else f"the {cluster.name} cluster has no {', '.join(sorted(missing))}"
    )
    if missing & required():
        pytest.fail(
            f"EDGE_REQUIRE names {', '.join(sorted(missing & required()))}, but {where}", pytrace=False
        )
    pytest.skip(f"needs {', '.join(sorted(missing))}: {where}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where EDGE_REQUIRE says that every level must run, a test that skips itself has failed."""
    report = yield
    if report.skipped and required() and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"EDGE_REQUIRE is set, but the test was skipped: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def edge_cluster(pytestconfig: pytest.Config) -> Cluster:
    """Return the session's cluster: one that is up already, else one that is taken down at the end."""
    cluster = _opened(pytestconfig)
    if isinstance(cluster, str):
        pytest.skip(cluster)
    return cluster


def pytest_unconfigure(config: pytest.Config) -> None:
    """Give the cluster back, also after Ctrl-C."""
    cluster = config.stash.get(_OPENED, None)
    if isinstance(cluster, Cluster):
        cluster.close()


def _opened(config: pytest.Config) -> Cluster | str:
    """Return the session's cluster, opened at its first use, or the reason why there is none."""
    if _OPENED not in config.stash:
        wanted = config.stash.get(_WANTED, None) or frozenset()
        try:
            config.stash[_OPENED] = open_cluster(wanted)
        except ClusterError as failed:
            config.stash[_OPENED] = str(failed)
    return config.stash[_OPENED]
