"""Builders of the objects that the operator applies: values in, a new document out."""
