"""The peers: one small program each, run in a virtual environment of its own."""
