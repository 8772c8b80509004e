"""One module for each outside system: the Kubernetes API, model pods, registries, metrics."""
