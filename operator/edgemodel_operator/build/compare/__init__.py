"""Do two files of a model compute the same? Asked once, when a build has rewritten a model."""
