"""What every program shows to the machines around it: structured logs, probes and metrics."""
