"""How fast the admission webhook answers, on one core: `make bench-admission`."""
