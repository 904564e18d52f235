"""Glyphs: what is drawn, and that it teaches a net to read digits that people wrote."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.data import digits, glyphs
from headway.data._glyphs import draw_digits
from headway.fit import fit

PARTS = ("train", "validation", "test")


def load(**settings):
    settings = {"kind": "glyphs", "seed": 5, "train": 130, "held_out": 70, **settings}
    return validate_section(glyphs.Config, settings, path="data").load()


def everything(split):
    return split.gather(torch.arange(len(split)), epoch=0)


def stored(data, part):
    """Returns a part's pixels as they were before they were standardised."""
    scaling = data.reading["scaling"]
    pixels = everything(getattr(data, part))["input"].double()
    return (pixels * torch.tensor(scaling["std"]) + torch.tensor(scaling["mean"])).round().long().flatten(1)


@pytest.mark.quick
def test_the_same_seed_draws_the_same_glyphs():
    first, again, other = load(), load(), load(seed=6)
    for part in PARTS:
        one, two = everything(getattr(first, part)), everything(getattr(again, part))
        assert all(torch.equal(one[name], two[name]) for name in ("input", "target"))
    assert not torch.equal(stored(first, "train"), stored(other, "train"))
    assert first.fingerprint == again.fingerprint != other.fingerprint


@pytest.mark.quick
@pytest.mark.parametrize(("layout", "shape"), [("image", (1, 8, 8)), ("features", (64,))])
def test_samples_are_as_the_spec_says_and_as_those_of_the_real_digits(layout, shape):
    data = load(layout=layout)
    real = digits.Config(kind="digits", seed=5, layout=layout).load()
    assert data.spec == real.spec
    assert data.reading["image"] == real.reading["image"]
    batch = data.train.gather(torch.tensor([3, 1]), epoch=0)
    assert batch["input"].shape == (2, *shape)
    assert (batch["input"].dtype, batch["target"].dtype) == (torch.float32, torch.int64)
    assert [len(getattr(data, part)) for part in PARTS] == [130, 70, 1797]


@pytest.mark.quick
def test_classes_are_balanced_and_pixels_count_the_ink_of_a_block():
    data = load(test="synthetic")
    for part, count in zip(PARTS, (13, 7, 7), strict=True):
        assert torch.bincount(everything(getattr(data, part))["target"]).tolist() == [count] * 10
        pixels = stored(data, part)
        assert 0 == pixels.min() < pixels.max() <= 16
    pixels = everything(data.train)["input"]
    assert abs(pixels.mean().item()) < 1e-5
    assert pixels.std(correction=0).item() == pytest.approx(1, abs=1e-5)


@pytest.mark.quick
def test_no_two_glyphs_are_the_same_and_none_is_a_real_digit():
    data = load(test="real")
    drawn = torch.cat([stored(data, "train"), stored(data, "validation")])
    assert len(torch.unique(drawn, dim=0)) == len(drawn)
    real = torch.from_numpy(load_digits().data).long()
    assert torch.equal(stored(data, "test"), real)
    assert not {tuple(row) for row in drawn.tolist()} & {tuple(row) for row in real.tolist()}


@pytest.mark.quick
def test_a_glyph_is_as_high_as_its_image_and_stands_in_the_middle():
    label_N = np.arange(200) % 10
    images = draw_digits(label_N, np.random.default_rng(7)).astype(float)
    rows, columns = images.sum(2), images.sum(1)
    assert ((rows[:, 0] > 0) & (rows[:, 7] > 0)).mean() > 0.9
    middle = (columns @ np.arange(8)) / columns.sum(1)
    assert abs(middle.mean() - 3.5) < 0.3
    # About as much ink as people use.
    assert images.mean() == pytest.approx(load_digits().data.mean(), rel=0.15)


@pytest.mark.quick
def test_too_few_to_have_each_digit_are_refused():
    with pytest.raises(UserError, match=r"^data\.train: .*10"):
        load(train=9)


@pytest.mark.slow
def test_a_net_that_saw_glyphs_only_reads_real_digits(tmp_path):
    changes = {"data.train": 3000, "trainer.max_epochs": 6, "trainer.threads": 1, "track.wandb": "disabled"}
    metrics = fit("convnet-glyphs", changes, runs=tmp_path, progress=False).metrics
    assert metrics["test/accuracy"] > 0.85
    assert metrics["val/accuracy"] > 0.95
