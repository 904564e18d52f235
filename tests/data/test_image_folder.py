"""A tree of photographs, decoded as it is needed."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.data import image_folder

pytestmark = pytest.mark.quick

COLOURS = {"cat": (200, 10, 30), "dog": (20, 180, 60), "eel": (40, 50, 220)}


def save(path, colour, size=(13, 11), **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path, **options)


@pytest.fixture
def folder(tmp_path):
    for part, count in (("train", 5), ("val", 2)):
        for name, colour in COLOURS.items():
            for number in range(count):
                suffix = ("png", "jpg", "JPEG")[number % 3]
                save(tmp_path / part / name / f"{number}.{suffix}", colour)
    return tmp_path


def load(folder, **settings):
    section = {"kind": "image_folder", "seed": 5, "folder": str(folder), "size": 7, **settings}
    return validate_section(image_folder.Config, section, path="data").load()


def everything(split):
    return split.gather(torch.arange(len(split)), epoch=0)


def test_a_class_is_a_folder_and_a_sample_its_image(folder):
    data = load(folder, mean=[0, 0, 0], std=[1, 1, 1], workers=3)
    assert data.spec.class_names == ("cat", "dog", "eel")
    assert data.spec.input_shape == (3, 7, 7)
    assert (len(data.train), len(data.validation), len(data.test)) == (15, 6, 6)
    assert data.workers == 3
    assert not data.train.in_memory
    batch = data.train.gather(torch.tensor([11, 0]), epoch=2)
    assert batch["target"].tolist() == [2, 0]
    for row, name in enumerate(("eel", "cat")):
        expected = torch.tensor(COLOURS[name])[:, None, None].expand(3, 7, 7) / 255
        torch.testing.assert_close(batch["input"][row], expected, atol=0.02, rtol=0)


def test_pixels_are_normalised_with_the_given_statistics(folder):
    plain = load(folder, mean=[0, 0, 0], std=[1, 1, 1])
    scaled = load(folder, mean=[0.1, 0.2, 0.3], std=[0.5, 0.4, 0.2])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in ([0.1, 0.2, 0.3], [0.5, 0.4, 0.2]))
    torch.testing.assert_close(everything(scaled.test)["input"], (everything(plain.test)["input"] - mean) / std)


def test_pixels_come_in_the_dtype_of_the_split(folder):
    split = load(folder).train.to(torch.device("cpu"), torch.float64)
    assert split.gather(torch.tensor([1]), epoch=0)["input"].dtype == torch.float64


@pytest.mark.parametrize("size", [(40, 20), (20, 40)])
def test_the_centre_of_the_longer_side_is_kept(tmp_path, size):
    pixels = np.zeros((40, 20, 3), np.uint8)
    pixels[10:30] = 255
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        upright = pixels if size == (20, 40) else pixels.transpose(1, 0, 2)
        for number in range(3):
            Image.fromarray(upright).save(tmp_path / "train" / name / f"{number}.png")
    data = load(tmp_path, size=20, mean=[0, 0, 0], std=[1, 1, 1], validation=0.3)
    assert everything(data.train)["input"].eq(1).all()


def test_an_image_of_another_mode_is_read_as_colours(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "train" / name).mkdir(parents=True)
        Image.new("L", (9, 9), 51).save(tmp_path / "train" / name / "grey.png")
    data = load(tmp_path, mean=[0, 0, 0], std=[1, 1, 1], validation=0.5)
    torch.testing.assert_close(everything(data.train)["input"], torch.full((1, 3, 7, 7), 0.2))


def test_validation_is_split_off_by_seed_where_there_is_no_val(folder):
    for file in (folder / "val").rglob("*.*"):
        file.unlink()
    for entry in (folder / "val").iterdir():
        entry.rmdir()
    (folder / "val").rmdir()
    first, again, other = (load(folder, validation=0.4, seed=seed) for seed in (5, 5, 6))
    assert first.validation.samples == again.validation.samples
    assert first.validation.samples != other.validation.samples
    assert len(first.validation) == 6
    assert not set(first.train.samples) & set(first.validation.samples)
    assert first.test.samples == first.validation.samples


def test_a_test_folder_is_the_test_part(folder):
    save(folder / "test" / "dog" / "new.png", COLOURS["dog"])
    data = load(folder)
    assert (len(data.validation), len(data.test)) == (6, 1)
    assert everything(data.test)["target"].tolist() == [1]


def test_the_fingerprint_tells_trees_apart(folder):
    before = load(folder).fingerprint
    assert load(folder, seed=6).fingerprint == before
    save(folder / "train" / "dog" / "new.png", COLOURS["dog"])
    assert load(folder).fingerprint != before


def test_a_split_travels_to_a_worker_process(folder):
    split = load(folder).train
    copy = pickle.loads(pickle.dumps(split))
    assert torch.equal(everything(copy)["input"], everything(split)["input"])


@pytest.mark.parametrize("damage", [lambda raw: raw[: len(raw) // 2], lambda raw: b"not an image", lambda raw: b""])
@pytest.mark.parametrize("name", ["0.png", "1.jpg"])
def test_a_corrupted_image_is_named(folder, damage, name):
    path = folder / "train" / "dog" / name
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=rf"^data\.folder: {path} cannot be decoded"):
        everything(load(folder).train)


def test_a_missing_tree_is_explained(tmp_path):
    with pytest.raises(UserError, match=rf"^data\.folder: {tmp_path}/train is not there"):
        load(tmp_path)


def test_one_class_only_is_refused(tmp_path):
    save(tmp_path / "train" / "cat" / "0.png", COLOURS["cat"])
    with pytest.raises(UserError, match="has one class only, cat"):
        load(tmp_path)


def test_a_class_without_images_is_named(folder):
    (folder / "train" / "fox").mkdir()
    (folder / "train" / "fox" / "notes.txt").write_text("none yet", encoding="utf-8")
    with pytest.raises(UserError, match=r"train/fox has no \.jpg, \.jpeg or \.png"):
        load(folder)


def test_a_class_that_training_lacks_is_named(folder):
    save(folder / "val" / "cats" / "0.png", COLOURS["cat"])
    with pytest.raises(UserError, match=r"val/cats is a class that train/ lacks; did you mean cat\?"):
        load(folder)


def test_a_deviation_of_zero_is_refused(folder):
    with pytest.raises(UserError, match=r"^data\.std\.1: "):
        load(folder, std=[1, 0, 1])
