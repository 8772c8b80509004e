"""Builds in Kubernetes Jobs: what needs a volume, another image or another node than the operator's."""
