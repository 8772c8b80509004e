"""`python -m cluster`: see `docs/cluster.md`."""

from cluster.cli import main

main()
