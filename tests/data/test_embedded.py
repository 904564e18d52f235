"""The data sets that come along: digits, two tables, two toys."""

import numpy as np
import pytest
import torch

from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.data import breast_cancer, diabetes, digits, two_moons, xor

pytestmark = pytest.mark.quick

SOURCES = {"digits": digits, "breast_cancer": breast_cancer, "diabetes": diabetes, "two_moons": two_moons, "xor": xor}


def load(kind, **settings):
    return validate_section(SOURCES[kind].Config, {"kind": kind, "seed": 5, **settings}, path="data").load()


def everything(split):
    return split.gather(torch.arange(len(split)), epoch=0)


@pytest.mark.parametrize("kind", SOURCES)
def test_the_same_seed_loads_the_same_data(kind):
    first, again, other = load(kind), load(kind), load(kind, seed=6)
    for part in ("train", "validation", "test"):
        one, two = everything(getattr(first, part)), everything(getattr(again, part))
        assert all(torch.equal(one[name], two[name]) for name in ("input", "target"))
    assert not torch.equal(everything(first.train)["input"], everything(other.train)["input"])
    assert first.fingerprint == again.fingerprint
    assert len(first.fingerprint) == 64


@pytest.mark.parametrize("kind", ["digits", "breast_cancer", "diabetes"])
def test_the_fingerprint_is_of_the_content_and_not_of_the_split(kind):
    assert load(kind).fingerprint == load(kind, seed=6, validation=0.3).fingerprint


@pytest.mark.parametrize(("kind", "count"), [("digits", 1797), ("breast_cancer", 569), ("diabetes", 442)])
def test_no_sample_is_lost_or_in_two_parts(kind, count):
    data = load(kind)
    rows = torch.cat([everything(part)["input"].flatten(1) for part in (data.train, data.validation, data.test)])
    assert len(rows) == count
    assert len(data.validation) == round(0.15 * count)
    distinct = len(torch.unique(rows, dim=0))
    assert distinct >= count - 1


@pytest.mark.parametrize("kind", SOURCES)
def test_samples_are_as_the_spec_says(kind):
    data = load(kind)
    batch = data.train.gather(torch.tensor([3, 1]), epoch=0)
    assert batch["input"].shape == (2, *data.spec.input_shape)
    assert batch["input"].dtype == torch.float32
    if data.spec.num_classes:
        assert batch["target"].dtype == torch.int64
        assert sorted(everything(data.train)["target"].unique().tolist()) == list(range(data.spec.num_classes))
        assert len(data.spec.class_names) == data.spec.num_classes
    else:
        assert batch["target"].shape == (2, data.spec.target_size)
    assert not data.spec.feature_names or (len(data.spec.feature_names),) == data.spec.input_shape


@pytest.mark.parametrize("kind", ["breast_cancer", "diabetes"])
def test_features_are_standardised_on_the_training_part(kind):
    data = load(kind)
    train, test = everything(data.train)["input"], everything(data.test)["input"]
    torch.testing.assert_close(train.mean(0), torch.zeros(train.shape[1]), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std(0, correction=0), torch.ones(train.shape[1]))
    assert test.mean(0).abs().max() > 0.01


def test_the_target_of_diabetes_is_standardised_on_the_training_part():
    target = everything(load("diabetes").train)["target"]
    assert abs(target.mean().item()) < 1e-6
    assert target.std(correction=0).item() == pytest.approx(1)


def test_digits_are_the_same_pixels_in_both_layouts():
    flat, image = load("digits"), load("digits", layout="image")
    assert flat.spec.input_shape == (64,)
    assert image.spec.input_shape == (1, 8, 8)
    assert torch.equal(everything(flat.test)["input"], everything(image.test)["input"].flatten(1))
    pixels = everything(flat.train)["input"]
    assert abs(pixels.mean().item()) < 1e-5
    assert pixels.std(correction=0).item() == pytest.approx(1, abs=1e-5)


def test_moons_without_noise_lie_on_their_circles():
    batch = everything(load("two_moons", num_samples=101, noise=0.0).train)
    centre = torch.where(batch["target"][:, None] == 1, torch.tensor([1.0, 0.5]), torch.zeros(2))
    torch.testing.assert_close((batch["input"] - centre).norm(dim=1), torch.ones(len(centre)))


def test_xor_is_one_where_exactly_one_coordinate_is_positive():
    batch = everything(load("xor", num_samples=103, noise=0.0).train)
    assert torch.equal(batch["target"], (batch["input"].prod(1) < 0).long())
    assert len(torch.unique(batch["input"], dim=0)) == 4


def test_noise_is_what_is_added():
    clean, noisy = (everything(load("xor", num_samples=1009, noise=noise).train)["input"] for noise in (0.0, 0.3))
    assert np.std((noisy - clean).numpy()) == pytest.approx(0.3, rel=0.1)


def test_fractions_that_leave_nothing_are_refused():
    with pytest.raises(UserError, match=r"^data: validation 0\.6 and test 0\.4 leave nothing to train on"):
        load("xor", validation=0.6, test=0.4)


def test_too_few_points_for_a_part_are_refused():
    with pytest.raises(UserError, match=r"^data\.validation: 0\.15 of 3 samples is none"):
        load("two_moons", num_samples=3)
