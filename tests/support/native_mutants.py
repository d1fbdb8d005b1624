"""Loads mutants of a .pte and tells on stdout what became of each; a program of its own, for it may crash.

    python -m tests.support.native_mutants MODEL LIBRARIES SCRATCH FIRST END

Prints `SEED open` before it opens a mutant, `SEED load` before it loads what could be opened, and
`SEED loaded` or `SEED refused` at last.
"""

from __future__ import annotations

import random
import resource
import sys
from pathlib import Path

from orchestrator.agent.native import ShimError
from tests.support.native_shim import Shim

# A mutant's memory plan may ask for anything; agents compare it with the free memory.
_MAX_PLANNED_BYTES = 1 << 28


def mutate(data: bytes, seed: int) -> bytes:
    """`data` cut short, with one bit, eight bytes or one word changed; the last is what an offset could be."""
    rng = random.Random(seed)
    mutant = bytearray(data)
    match seed % 4:
        case 0:
            del mutant[rng.randrange(len(mutant)) :]
        case 1:
            mutant[rng.randrange(len(mutant))] ^= 1 << rng.randrange(8)
        case 2:
            for _ in range(8):
                mutant[rng.randrange(len(mutant))] = rng.randrange(256)
        case _:
            at = rng.randrange(len(mutant) - 4)
            mutant[at : at + 4] = rng.choice([b"\xff" * 4, b"\0" * 4, b"\xff\xff\xff\x7f", b"\0\0\0\x80"])
    return bytes(mutant)


def main() -> None:
    model, libraries, scratch, first, end = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
    data = Path(model).read_bytes()
    shim = Shim(Path(libraries))
    shim.set_threads(1)
    for seed in range(int(first), int(end)):
        Path(scratch).write_bytes(mutate(data, seed))
        print(seed, "open", flush=True)
        try:
            with shim.model(Path(scratch)) as opened:
                print(seed, "load", flush=True)
                if opened.planned_bytes <= _MAX_PLANNED_BYTES:
                    opened.load()
            print(seed, "loaded", flush=True)
        except ShimError:
            print(seed, "refused", flush=True)


if __name__ == "__main__":
    main()
