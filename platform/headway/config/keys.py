"""Keys of randomness: every generator in headway is seeded by a hash of what it is for.

Two draws that are for different things get unrelated streams, and a draw for the same thing gets
the same stream wherever and whenever it is made.
"""

from __future__ import annotations

import hashlib


def derive(seed: int, *purpose: str | int) -> int:
    """Returns a 63-bit key for a purpose: `derive(seed, "order", epoch)`."""
    digest = hashlib.blake2b(repr((seed, purpose)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
