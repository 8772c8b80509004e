"""One pass over one model: read everything, decide, act, report."""
