"""A Kubernetes operator for models on fleets of small edge clusters."""
