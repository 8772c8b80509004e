"""Fuzzing of what the inference server reads from the network: every fast path against the strict one.

``make fuzz-serving`` runs it; the tests run a short, fixed slice of it.
"""
