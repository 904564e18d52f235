"""CIFAR-10's binary files."""

import numpy as np
import pytest
import torch

from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.data import cifar10

pytestmark = pytest.mark.quick

TRAIN_NAMES = [f"data_batch_{number}.bin" for number in range(1, 6)]


@pytest.fixture
def records():
    generator = np.random.default_rng(19)
    made = {}
    for name, count in zip([*TRAIN_NAMES, "test_batch.bin"], [3, 5, 7, 11, 13, 17], strict=True):
        made[name] = generator.integers(0, 256, (count, 3073), np.uint8)
        made[name][:, 0] %= 10
    return made


@pytest.fixture
def folder(tmp_path, records):
    for name, array in records.items():
        (tmp_path / name).write_bytes(array.tobytes())
    return tmp_path


def load(folder, **settings):
    section = {"kind": "cifar10", "seed": 5, "folder": str(folder), **settings}
    return validate_section(cifar10.Config, section, path="data").load()


def everything(split):
    return split.gather(torch.arange(len(split)), epoch=0)


def test_records_come_back_as_planes_and_labels(folder, records):
    data = load(folder)
    assert (len(data.train), len(data.validation), len(data.test)) == (35, 4, 17)
    assert data.spec.input_shape == (3, 32, 32)
    assert data.spec.class_names[3] == "cat"
    batch = everything(data.test)
    raw = batch["input"] * data.test.scaling.std + data.test.scaling.mean
    expected = records["test_batch.bin"][:, 1:].reshape(17, 3, 32, 32)
    assert torch.equal(raw.round().byte(), torch.from_numpy(expected))
    assert batch["target"].tolist() == records["test_batch.bin"][:, 0].tolist()


def test_each_channel_is_normalised_by_the_training_part(folder):
    train = everything(load(folder).train)["input"].transpose(0, 1).flatten(1)
    torch.testing.assert_close(train.mean(1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(train.std(1, correction=0), torch.ones(3), atol=1e-5, rtol=0)


def test_every_training_record_is_in_one_part(folder, records):
    data = load(folder)
    stored = torch.cat([data.train.tensors["input"], data.validation.tensors["input"]]).flatten(1)
    expected = np.concatenate([records[name][:, 1:] for name in TRAIN_NAMES])
    assert sorted(stored.tolist()) == sorted(expected.tolist())


def test_a_missing_file_is_named(folder):
    (folder / "data_batch_3.bin").unlink()
    with pytest.raises(UserError, match=rf"^data\.folder: {folder}/data_batch_3\.bin is not there.*fetch cifar10"):
        load(folder)


@pytest.mark.parametrize("damage", [lambda raw: raw[:-1], lambda raw: b"", lambda raw: raw + b"x"])
def test_a_damaged_file_is_named(folder, damage):
    path = folder / "data_batch_2.bin"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(UserError, match=rf"^data\.folder: {path} is truncated or no CIFAR-10 binary file"):
        load(folder)


def test_a_label_that_is_no_class_is_named(folder, records):
    records["test_batch.bin"][4, 0] = 10
    (folder / "test_batch.bin").write_bytes(records["test_batch.bin"].tobytes())
    with pytest.raises(UserError, match=r"test_batch\.bin has label 10 at image 4"):
        load(folder)


def test_without_a_folder_it_is_the_data_homes(folder, monkeypatch):
    monkeypatch.setenv("HEADWAY_DATA", str(folder.parent))
    folder.rename(folder.parent / "cifar10")
    config = validate_section(cifar10.Config, {"kind": "cifar10", "seed": 5}, path="data")
    assert len(config.load().test) == 17
