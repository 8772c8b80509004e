"""Measuring how images of models are built: ours against Dockerfiles, on one machine, in one run."""
