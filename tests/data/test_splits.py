"""Parts of independent samples: drawn by seed, disjoint, standardised by training statistics only."""

import numpy as np
import pytest
import torch

from headway.config.errors import UserError
from headway.data._splits import (
    Scaling,
    TensorSplit,
    fingerprint_arrays,
    pixel_scaling,
    shuffled_parts,
    standardise,
)

pytestmark = pytest.mark.quick

FRACTIONS = {"validation": 0.2, "test": 0.3}


def test_parts_cover_every_sample_exactly_once():
    parts = shuffled_parts(53, FRACTIONS, 7)
    assert [len(part) for part in parts] == [53 - 11 - 16, 11, 16]
    assert sorted(torch.cat(parts).tolist()) == list(range(53))


def test_parts_depend_on_the_seed_and_on_nothing_else():
    torch.manual_seed(1)
    first = shuffled_parts(53, FRACTIONS, 7)
    torch.manual_seed(2)
    again, other = shuffled_parts(53, FRACTIONS, 7), shuffled_parts(53, FRACTIONS, 8)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])


def test_drawing_parts_leaves_the_global_generator_alone():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    shuffled_parts(53, FRACTIONS, 7)
    assert torch.equal(before, torch.get_rng_state())


def test_a_part_without_a_sample_is_refused_by_name():
    with pytest.raises(UserError, match=r"^data\.test: 0\.01 of 31 samples is none"):
        shuffled_parts(31, {"validation": 0.1, "test": 0.01}, 0)


def test_parts_that_round_up_to_everything_are_refused():
    with pytest.raises(UserError, match="leave none of 2 samples to train on"):
        shuffled_parts(2, {"validation": 0.49, "test": 0.49}, 0)


def test_standardising_uses_the_training_rows_only():
    generator = np.random.default_rng(11)
    columns = generator.normal(5, 3, (31, 3))
    train = torch.arange(17)
    columns[20] = 1e6
    standard = standardise(columns, train)
    torch.testing.assert_close(standard[train].mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(standard[train].std(0, correction=0), torch.ones(3))
    assert standard.dtype == torch.float32
    assert standard[20].min() > 1e4


def test_a_constant_column_becomes_zero_and_not_nan():
    assert torch.equal(standardise(np.full((5, 2), 3.0), torch.arange(3)), torch.zeros(5, 2))


def test_pixel_statistics_are_those_of_each_channel():
    images = torch.randint(0, 256, (2051, 2, 3, 5), dtype=torch.uint8, generator=torch.Generator().manual_seed(13))
    scaling = pixel_scaling(images)
    exact = images.double()
    torch.testing.assert_close(scaling.mean.flatten(), exact.mean((0, 2, 3)))
    torch.testing.assert_close(scaling.std.flatten(), exact.transpose(0, 1).flatten(1).std(1, correction=0))


def test_bytes_are_scaled_as_they_are_gathered():
    images = torch.arange(2 * 3 * 5, dtype=torch.uint8).view(5, 1, 2, 3)
    split = TensorSplit(
        {"input": images, "target": torch.arange(5)}, scaling=Scaling(torch.ones(1), torch.tensor([2.0]))
    )
    batch = split.gather(torch.tensor([4, 1]), epoch=3)
    torch.testing.assert_close(batch["input"], (images[[4, 1]].float() - 1) / 2)
    assert batch["target"].tolist() == [4, 1]
    assert split.tensors["input"].dtype == torch.uint8


def test_moving_a_split_changes_real_values_only():
    split = TensorSplit({"input": torch.ones(3, 2), "target": torch.arange(3)})
    moved = split.to(torch.device("cpu"), torch.float64)
    batch = moved.gather(torch.tensor([2]), epoch=0)
    assert batch["input"].dtype == torch.float64
    assert batch["target"].dtype == torch.int64
    assert split.tensors["input"].dtype == torch.float32
    assert len(moved) == 3


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_scaled_bytes_come_in_the_dtype_of_the_split(dtype):
    split = TensorSplit(
        {"input": torch.full((3, 2), 7, dtype=torch.uint8)},
        scaling=Scaling(torch.tensor([4.0]), torch.tensor([3.0])),
    )
    batch = split.to(torch.device("cpu"), dtype).gather(torch.tensor([0]), epoch=0)
    assert torch.equal(batch["input"], torch.ones(1, 2, dtype=dtype))


def test_a_fingerprint_tells_values_types_and_shapes_apart():
    array = np.arange(6, dtype=np.int32)
    others = [array + 1, array.astype(np.int64), array.reshape(2, 3), array.view(np.uint32)]
    assert fingerprint_arrays(array) == fingerprint_arrays(torch.from_numpy(array))
    assert len({fingerprint_arrays(other) for other in [array, *others]}) == 5
