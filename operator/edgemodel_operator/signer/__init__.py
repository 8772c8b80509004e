"""The program that holds the signing keys: it signs what is asked of it by the operator, and nothing else."""
