"""``python -m fuzz.guided TARGET [OPTIONS OF LIBFUZZER]``; runs in the environment of this folder."""

import sys
from random import Random

import atheris  # type: ignore[import-untyped, import-not-found, unused-ignore]

with atheris.instrument_imports(include=["edgemodel_server"]):
    from fuzz.targets import TARGETS
from fuzz.mutation import MAX_INPUT_BYTES, Mutator


def main() -> None:
    """Fuzz one target; libFuzzer ends the process itself."""
    name, *options = sys.argv[1:]
    target = TARGETS[name]()
    mutator = Mutator(target.words)

    def check(data: bytes) -> None:
        target.check(data)

    def mutate(data: bytes, max_size: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.3:
            changed: bytes = atheris.Mutate(data, max_size)
            return changed
        return mutator.mutate(random, data, random.choice(target.seeds))[:max_size]

    atheris.Setup([sys.argv[0], f"-max_len={MAX_INPUT_BYTES}", *options], check, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
