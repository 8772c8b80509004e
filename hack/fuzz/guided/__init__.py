"""Fuzzing that is led by coverage: atheris chooses which inputs to go on from, our mutators change them."""
