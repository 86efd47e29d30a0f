"""Named random streams, all derived from a trial's one seed.

A stream depends on the seed and its name alone, never on the optimizer, so every optimizer starts from the
same weights and meets the same minibatches in the same order: trials with equal seeds can be compared in pairs.
"""

import hashlib
from typing import Literal

Stream = Literal["init", "order", "noise", "augmentation", "adapters", "diffusion"]


def stream(seed: int, name: Stream) -> int:
    """A 63-bit seed for the random stream `name` of a trial with this `seed`."""
    digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
