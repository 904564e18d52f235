"""IDX files: read as they are, refused by name when they are not what they should be."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.data import mnist
from headway.data._catalogue import DATASETS
from headway.data._store import data_home, missing_files

NUM_TRAIN, NUM_TEST, HEIGHT, WIDTH = 53, 11, 5, 7


def idx(array):
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture
def arrays():
    generator = np.random.default_rng(17)
    made = {}
    for prefix, count in (("train", NUM_TRAIN), ("t10k", NUM_TEST)):
        made[f"{prefix}-images-idx3-ubyte"] = generator.integers(0, 256, (count, HEIGHT, WIDTH), np.uint8)
        made[f"{prefix}-labels-idx1-ubyte"] = generator.integers(0, 10, count, np.uint8)
    return made


@pytest.fixture
def folder(tmp_path, arrays):
    for name, array in arrays.items():
        (tmp_path / name).write_bytes(idx(array))
    return tmp_path


def load(folder, **settings):
    section = {"kind": "mnist", "seed": 5, "folder": str(folder), **settings}
    return validate_section(mnist.Config, section, path="data").load()


def everything(split):
    return split.gather(torch.arange(len(split)), epoch=0)


@pytest.mark.quick
def test_images_come_back_normalised_by_the_training_part(folder, arrays):
    data = load(folder, validation=0.2)
    assert (len(data.train), len(data.validation), len(data.test)) == (NUM_TRAIN - 11, 11, NUM_TEST)
    assert data.spec.input_shape == (1, HEIGHT, WIDTH)
    pixels = everything(data.train)["input"]
    assert abs(pixels.mean().item()) < 1e-5
    assert pixels.std(correction=0).item() == pytest.approx(1, abs=1e-5)
    scaling = data.train.scaling
    test = everything(data.test)
    raw = test["input"] * scaling.std + scaling.mean
    assert torch.equal(raw[:, 0].round().byte(), torch.from_numpy(arrays["t10k-images-idx3-ubyte"]))
    assert test["target"].tolist() == arrays["t10k-labels-idx1-ubyte"].tolist()


@pytest.mark.quick
def test_validation_is_split_off_the_training_file_by_seed(folder, arrays):
    first, again, other = load(folder), load(folder), load(folder, seed=6)
    assert torch.equal(everything(first.validation)["input"], everything(again.validation)["input"])
    assert not torch.equal(everything(first.validation)["input"], everything(other.validation)["input"])
    stored = torch.cat([first.train.tensors["input"], first.validation.tensors["input"]]).flatten(1)
    expected = torch.from_numpy(arrays["train-images-idx3-ubyte"]).flatten(1)
    assert sorted(stored.tolist()) == sorted(expected.tolist())
    assert first.fingerprint == other.fingerprint


@pytest.mark.quick
def test_packed_files_read_the_same_as_unpacked_ones(folder, tmp_path_factory, arrays):
    packed = tmp_path_factory.mktemp("packed")
    for name, array in arrays.items():
        (packed / f"{name}.gz").write_bytes(gzip.compress(idx(array)))
    assert load(packed).fingerprint == load(folder).fingerprint


@pytest.mark.quick
def test_padding_is_black_and_no_part_of_the_statistics(folder):
    plain, padded = load(folder), load(folder, pad=2)
    assert padded.spec.input_shape == (1, HEIGHT + 4, WIDTH + 4)
    one, two = everything(plain.test)["input"], everything(padded.test)["input"]
    torch.testing.assert_close(two[:, :, 2:-2, 2:-2], one)
    black = (0 - plain.train.scaling.mean) / plain.train.scaling.std
    torch.testing.assert_close(two[0, 0, 0, 0].double(), black.squeeze())


@pytest.mark.quick
@pytest.mark.parametrize("pad", [0, 2])
def test_flat_images_are_the_same_pixels(folder, pad):
    image, flat = load(folder, pad=pad), load(folder, pad=pad, layout="features")
    assert flat.spec.input_kind == "features"
    assert flat.spec.input_shape == ((HEIGHT + 2 * pad) * (WIDTH + 2 * pad),)
    assert torch.equal(everything(image.test)["input"].flatten(1), everything(flat.test)["input"])


@pytest.mark.quick
def test_a_plain_name_is_a_folder_of_the_data_home(folder, monkeypatch):
    monkeypatch.setenv("HEADWAY_DATA", str(folder.parent))
    assert len(load(folder.name).test) == NUM_TEST


@pytest.mark.quick
def test_clothes_have_their_own_names(folder):
    clothes = folder.parent / "fashion_mnist"
    folder.rename(clothes)
    assert load(clothes).spec.class_names[9] == "Ankle boot"


@pytest.mark.quick
def test_a_missing_file_is_named_with_the_command_that_gets_it(folder):
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(UserError, match=rf"^data\.folder: {folder} has no t10k-labels.*headway data fetch mnist"):
        load(folder)


@pytest.mark.quick
@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda raw: raw[:-1], "is truncated: 1,870 bytes, not 1,871"),
        (lambda raw: raw[:9], "is truncated: 9 bytes are not even a header"),
        (lambda raw: raw + b"x", "is too long: 1,872 bytes, not 1,871"),
        (lambda raw: b"", "starts with nothing"),
        (lambda raw: b"\x89PNG" + raw[4:], r"starts with 89 50 4e 47, which is no IDX file of bytes with 3 axes"),
        (lambda raw: raw[:2] + b"\x0d" + raw[3:], "starts with 00 00 0d 03"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(folder, damage, problem):
    path = folder / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=rf"^data\.folder: {path} {problem}"):
        load(folder)


@pytest.mark.quick
@pytest.mark.parametrize(
    "damage", [lambda raw: raw[:-9], lambda raw: b"no gzip", lambda raw: raw[:20] + b"xx" + raw[22:]]
)
def test_a_damaged_packed_file_is_named(folder, damage):
    path = folder / "train-images-idx3-ubyte"
    packed = gzip.compress(path.read_bytes())
    path.unlink()
    path.with_name(path.name + ".gz").write_bytes(damage(packed))
    with pytest.raises(UserError, match=rf"^data\.folder: {path}\.gz is truncated or no gzip file"):
        load(folder)


@pytest.mark.quick
def test_labels_of_another_file_are_refused(folder, arrays):
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(arrays["t10k-labels-idx1-ubyte"]))
    with pytest.raises(UserError, match=r"has 53 images, .* 11 labels"):
        load(folder)


@pytest.mark.quick
def test_test_images_of_another_size_are_refused(folder):
    (folder / "t10k-images-idx3-ubyte").write_bytes(idx(np.zeros((NUM_TEST, 3, 5), np.uint8)))
    with pytest.raises(UserError, match="training images of 5x7 and test images of 3x5"):
        load(folder)


@pytest.mark.quick
def test_a_label_that_is_no_class_is_refused(folder, arrays):
    labels = arrays["train-labels-idx1-ubyte"].copy()
    labels[3] = 17
    (folder / "train-labels-idx1-ubyte").write_bytes(idx(labels))
    with pytest.raises(UserError, match=r"has label 17 at image 3; there are classes 0 to 9"):
        load(folder)


@pytest.mark.quick
def test_images_are_stored_as_bytes(folder):
    assert load(folder).train.tensors["input"].dtype == torch.uint8


def real_folder() -> Path:
    """Returns where the whole of Fashion-MNIST is, if it is anywhere."""
    dataset = DATASETS["fashion_mnist"]
    places = [data_home() / "fashion_mnist", dataset.package_folder]
    found = [place for place in places if not missing_files(place, dataset)]
    if not found:
        pytest.skip("no Fashion-MNIST: run headway data fetch fashion_mnist")
    return found[0]


def test_the_whole_of_fashion_mnist_is_read():
    data = load(real_folder(), validation=0.1)
    assert (len(data.train), len(data.validation), len(data.test)) == (54_000, 6_000, 10_000)
    assert data.spec.input_shape == (1, 28, 28)
    assert data.spec.class_names[0] == "T-shirt/top"
    # The published statistics of the training file are 0.2860 and 0.3530.
    assert data.train.scaling.mean.item() / 255 == pytest.approx(0.2860, abs=2e-3)
    assert data.train.scaling.std.item() / 255 == pytest.approx(0.3530, abs=2e-3)
    assert torch.bincount(data.test.tensors["target"]).tolist() == [1000] * 10
    labels = torch.cat([data.train.tensors["target"], data.validation.tensors["target"]])
    assert torch.bincount(labels).tolist() == [6000] * 10
    assert data.fingerprint == load(real_folder(), seed=6).fingerprint
