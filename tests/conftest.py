"""Plugins of every test; fixtures live beside the tests that use them."""

pytest_plugins = ["cluster.pytest_plugin"]
