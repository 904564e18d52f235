"""Keys of randomness: the same for the same purpose, unrelated for any other."""

import pytest

from headway.config.keys import derive

pytestmark = pytest.mark.quick


def test_a_key_is_the_same_in_every_process_and_version():
    # Written down: another hash would change every run that is repeated from its recipe.
    assert derive(7, "order", 3) == 5379298317894423043


def test_every_purpose_has_a_key_of_its_own():
    keys = [
        derive(seed, *purpose) for seed in range(11) for purpose in [(), ("a",), ("b",), ("a", 1), ("a", "1"), (1,)]
    ]
    keys += [derive(seed, "order", epoch) for seed in range(11) for epoch in range(101)]
    assert len(set(keys)) == len(keys)


def test_a_key_fits_a_signed_64_bit_number():
    assert all(0 <= derive(seed, "x") < 2**63 for seed in [*range(1009), -1, 2**63, 10**30])


def test_bits_of_keys_are_fair():
    keys = [derive(seed, "fair") for seed in range(4099)]
    for bit in range(63):
        ones = sum(key >> bit & 1 for key in keys)
        assert abs(ones - 4099 / 2) < 5 * (4099 / 4) ** 0.5, bit
