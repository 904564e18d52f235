"""Moved images against shifts and turns of torch's own."""

import math

import pytest
import torch
import torch.nn.functional as F

from headway.config.contracts import DataSpec
from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.nn.augmentation import move
from headway.nn.draws import Draws
from headway.regularize.augment import Config
from headway.strategies import single

pytestmark = pytest.mark.quick

B, C, Y, X = 5, 3, 7, 11
SPEC = DataSpec("image", (C, Y, X), num_classes=3)


def images(*shape: int) -> torch.Tensor:
    return torch.randn(*(shape or (B, C, Y, X)), generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def still(rows: int = B, *, angle: float = 0.0, shift: tuple[float, float] = (0.0, 0.0)) -> dict[str, torch.Tensor]:
    return {
        "angle_B": torch.full((rows,), angle, dtype=torch.float64),
        "shift_B2": torch.tensor(shift, dtype=torch.float64).expand(rows, 2),
    }


def change(batch, first=0, **settings):
    draws = Draws(3, 2, first, len(batch))
    return Config(**settings).build(SPEC, seed=1).change_batch({"input": batch}, draws)["input"]


@pytest.mark.parametrize("border", ["mean", "edge"])
def test_an_image_that_is_not_moved_stays(border) -> None:
    torch.testing.assert_close(move(images(), **still(), border=border), images())


@pytest.mark.parametrize(("down", "right"), [(2, 0), (0, 3), (-1, -4), (6, -10)])
def test_a_shift_by_whole_pixels_is_a_crop_of_the_padded_image(down: int, right: int) -> None:
    found = move(images(), **still(shift=(down, right)))
    padded = F.pad(images(), (X, X, Y, Y))
    torch.testing.assert_close(found, padded[:, :, Y - down : 2 * Y - down, X - right : 2 * X - right])


def test_what_comes_in_at_the_edge_can_be_the_outermost_pixel() -> None:
    found = move(images(), **still(shift=(2, -3)), border="edge")
    padded = F.pad(images(), (3, 3, 2, 2), mode="replicate")
    torch.testing.assert_close(found, padded[:, :, 0:Y, 6 : 6 + X])


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_quarter_turn_is_torchs_rot90(turns: int) -> None:
    square = images(B, C, 7, 7)
    found = move(square, **still(angle=turns * math.pi / 2))
    torch.testing.assert_close(found, torch.rot90(square, turns, dims=(2, 3)))


def test_half_a_turn_of_a_wide_image_is_torchs_rot90_too() -> None:
    torch.testing.assert_close(move(images(), **still(angle=math.pi)), torch.rot90(images(), 2, dims=(2, 3)))


def test_an_image_is_turned_first_and_then_shifted() -> None:
    square = images(B, C, 7, 7)
    found = move(square, **still(angle=math.pi / 2, shift=(1, -2)))
    torch.testing.assert_close(found, move(torch.rot90(square, 1, dims=(2, 3)), **still(shift=(1, -2))))


def test_half_a_pixel_is_the_mean_of_two() -> None:
    found = move(images(), **still(shift=(0, 0.5)))[..., 1:]
    torch.testing.assert_close(found, (images()[..., 1:] + images()[..., :-1]) / 2)


def test_each_image_moves_by_its_own_draw_within_the_limit() -> None:
    pixel = torch.zeros(400, 1, Y, Y)
    pixel[:, 0, 3, 3] = 1.0
    spots = change(pixel, translate=2)[:, 0].flatten(1).argmax(1)
    places = {(int(spot) // Y - 3, int(spot) % Y - 3) for spot in spots}
    assert places == {(down, right) for down in range(-2, 3) for right in range(-2, 3)}


def test_turns_go_to_either_side_within_the_limit() -> None:
    dot = torch.zeros(400, 1, 41, 41, dtype=torch.float64)
    dot[:, 0, 20, 39:41] = 1.0
    mass = change(dot, rotate=10.0)[:, 0]
    mean_y = (mass.sum(2) * torch.arange(41)).sum(1) / mass.sum((1, 2)) - 20
    angle = torch.rad2deg(torch.asin(mean_y / 19.5))
    assert 9.0 < float(angle.max()) < 10.6
    assert -10.6 < float(angle.min()) < -9.0
    assert abs(float(angle.mean())) < 1.0


def test_brightness_adds_the_same_to_all_pixels_of_an_image() -> None:
    added = (change(images(), brightness=0.3) - images()).flatten(1)
    torch.testing.assert_close(added, added[:, :1].expand_as(added))
    amounts = (change(torch.zeros(400, C, Y, X), brightness=0.3))[:, 0, 0, 0]
    assert 0.28 < float(amounts.max()) <= 0.3
    assert -0.3 <= float(amounts.min()) < -0.28


def test_about_half_of_the_images_are_mirrored() -> None:
    many = images(200, 1, 5, 7)
    found = change(many, flip=True)
    mirrored = [row.equal(other.flip(2)) for row, other in zip(found, many, strict=True)]
    kept = [row.equal(other) for row, other in zip(found, many, strict=True)]
    assert all(one != other for one, other in zip(mirrored, kept, strict=True))
    assert 70 < sum(mirrored) < 130


def test_a_row_is_changed_alike_wherever_the_batch_is_cut() -> None:
    settings = {"translate": 2, "rotate": 20.0, "brightness": 0.2, "flip": True}
    whole = change(images(), **settings)
    assert not whole.equal(images())
    torch.testing.assert_close(change(images()[2:4], first=2, **settings), whole[2:4])


def test_half_precision_is_kept() -> None:
    found = change(images().bfloat16(), translate=1, rotate=5.0, brightness=0.1, flip=True)
    assert found.dtype == torch.bfloat16


def test_without_keys_the_librarys_generator_draws() -> None:
    technique = Config(translate=2, flip=True).build(SPEC, seed=1)
    torch.manual_seed(3)
    first = technique.change_batch({"input": images()}, None)["input"]
    torch.manual_seed(3)
    assert technique.change_batch({"input": images()}, None)["input"].equal(first)
    assert not technique.change_batch({"input": images()}, None)["input"].equal(first)


def test_what_is_no_image_or_leaves_itself_is_refused() -> None:
    strategy = single.Config(kind="single")
    with pytest.raises(UserError, match=r"regularize\.augment: needs images, and this data gives features"):
        Config(translate=1).check(DataSpec("features", (64,), num_classes=3), strategy)
    with pytest.raises(UserError, match=r"regularize\.augment\.translate: 7 pixels shift an image 7 pixels"):
        Config(translate=7).check(SPEC, strategy)
    Config(translate=6).check(SPEC, strategy)
    with pytest.raises(UserError, match=r"regularize\.augment: has no effect"):
        validate_section(Config, {}, path="regularize.augment")
