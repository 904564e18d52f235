"""A checkpoint is there whole or not at all, and a changed bit is found before it is used."""

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from headway.checkpoint import store
from headway.checkpoint.store import Checkpoint, Damaged, load, load_newest, prune, save, steps
from headway.config.errors import TrainingFailed

pytestmark = pytest.mark.quick


def checkpoint(step=7, value=1.0, rng=False):
    weights = {
        "linear.weight": torch.arange(15, dtype=torch.float32).view(3, 5) * value,
        "linear.bias": torch.full((3,), value, dtype=torch.float64),
        "half": torch.full((2, 3), value, dtype=torch.bfloat16),
        "turned": torch.arange(6.0).view(2, 3).T * value,
        "count": torch.tensor(3),
        "empty": torch.empty(0, 5),
    }
    optimizer = {"exp_avg/linear.weight": weights["linear.weight"] / 3, "step/linear.weight": torch.tensor(step * 1.0)}
    position = {"step": step, "best": {"step": 3, "value": 0.25, "metrics": {"val/loss": 0.25}}, "stalled": 2}
    return Checkpoint(weights, optimizer, position, {"cpu/0": torch.get_rng_state()} if rng else {})


def assert_same(one: Checkpoint, two: Checkpoint):
    for left, right in ((one.weights, two.weights), (one.optimizer, two.optimizer), (one.rng, two.rng)):
        assert left.keys() == right.keys()
        for name in left:
            assert left[name].dtype == right[name].dtype
            assert torch.equal(left[name], right[name])
    assert {key: value for key, value in two.position.items() if key != "format"} == one.position


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "checkpoints"


# ---- whole ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("rng", [False, True])
def test_a_checkpoint_comes_back_as_it_was(folder, rng):
    given = checkpoint(rng=rng)
    path = save(folder, given)
    assert path == folder / "00000007"
    found = load(path)
    assert_same(given, found)
    assert found.step == 7
    assert sorted(file.name for file in path.iterdir()) == [
        *("MANIFEST.json", "optimizer.safetensors", "position.json"),
        *(["rng.safetensors"] if rng else []),
        "weights.safetensors",
    ]


def test_an_optimizer_without_state_is_kept_too(folder):
    given = Checkpoint({"w": torch.ones(2)}, {}, {"step": 0, "best": None, "stalled": 0})
    assert_same(given, load(save(folder, given)))


def test_numbers_of_the_position_are_exact(folder):
    given = Checkpoint({"w": torch.ones(2)}, {}, {"step": 1, "best": {"value": 0.1 + 0.2}, "stalled": 0})
    assert load(save(folder, given)).position["best"]["value"] == 0.1 + 0.2


def test_the_manifest_says_size_and_checksum_of_every_file(folder):
    path = save(folder, checkpoint(rng=True))
    manifest = json.loads((path / "MANIFEST.json").read_text())
    assert set(manifest) == {file.name for file in path.iterdir()} - {"MANIFEST.json"}
    assert all(seal["bytes"] == (path / name).stat().st_size for name, seal in manifest.items())


def test_nothing_is_left_beside_a_checkpoint(folder):
    for step in (7, 7, 11):
        save(folder, checkpoint(step))
    assert sorted(path.name for path in folder.iterdir()) == ["00000007", "00000011"]


def test_one_of_the_same_step_is_replaced(folder):
    save(folder, checkpoint(value=1.0, rng=True))
    save(folder, checkpoint(value=2.0))
    assert_same(checkpoint(value=2.0), load(folder / "00000007"))


def test_steps_are_those_of_checkpoints(folder):
    assert steps(folder) == []
    for step in (11, 7, 123_456_789):
        save(folder, checkpoint(step))
    (folder / ".00000013.99").mkdir()
    (folder / "notes").mkdir()
    assert steps(folder) == [7, 11, 123_456_789]


# ---- interrupted ---------------------------------------------------------------------------------


class Killed(BaseException):
    """What no `except` of ours catches: the process is gone."""


def stages(monkeypatch, fail):
    """Makes the nth of all file operations of a save call `fail`; returns how many were made."""
    made = []

    def counting(name, real):
        def operation(*arguments, **keywords):
            made.append(name)
            fail(len(made))
            return real(*arguments, **keywords)

        return operation

    monkeypatch.setattr(os, "fsync", counting("fsync", os.fsync))
    monkeypatch.setattr(os, "open", counting("open", os.open))
    monkeypatch.setattr(shutil, "rmtree", counting("rmtree", shutil.rmtree))
    monkeypatch.setattr(store, "save_file", counting("save_file", store.save_file))
    for name in ("mkdir", "rename", "write_text", "open"):
        monkeypatch.setattr(Path, name, counting(name, getattr(Path, name)))
    return made


def operations_of_a_save(folder, old, new, monkeypatch):
    save(folder, old)
    with monkeypatch.context() as patched:
        made = stages(patched, lambda _: None)
        save(folder, new)
    return len(made)


@pytest.mark.parametrize("same_step", [True, False])
def test_a_save_that_is_killed_anywhere_leaves_a_whole_checkpoint(folder, monkeypatch, same_step):
    old, new = checkpoint(7, 1.0), checkpoint(7 if same_step else 11, 2.0)
    total = operations_of_a_save(folder, old, new, monkeypatch)
    assert total > 10
    for stage in range(1, total + 1):
        shutil.rmtree(folder)
        save(folder, old)

        def fail(made, stage=stage):
            if made == stage:
                raise Killed

        with monkeypatch.context() as patched:
            stages(patched, fail)
            with pytest.raises(Killed):
                save(folder, new)
        found, damaged = load_newest(folder)
        assert damaged == []
        assert_same(new if found.weights["linear.bias"][0] == 2.0 else old, found)
        # The next save finds nothing in its way, and clears what was left.
        save(folder, new)
        prune(folder, {7, 11})
        assert_same(new, load_newest(folder)[0])
        assert [path.name for path in folder.iterdir() if path.name.startswith(".")] == []


@pytest.mark.parametrize("same_step", [True, False])
def test_a_disk_that_refuses_anywhere_leaves_a_whole_checkpoint(folder, monkeypatch, same_step):
    old, new = checkpoint(7, 1.0), checkpoint(7 if same_step else 11, 2.0)
    total = operations_of_a_save(folder, old, new, monkeypatch)
    refused = 0
    for stage in range(1, total + 1):
        shutil.rmtree(folder)
        save(folder, old)

        def fail(made, stage=stage):
            if made == stage:
                raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            stages(patched, fail)
            try:
                save(folder, new)
            except TrainingFailed as problem:
                refused += 1
                assert "could not be written: [Errno 28] No space left on device" in str(problem)
            except OSError:
                pass  # the stage was the clearing away before or after: nothing was lost
        found, damaged = load_newest(folder)
        assert damaged == []
        assert_same(new if found.weights["linear.bias"][0] == 2.0 else old, found)
    assert refused > 10


def test_a_checkpoint_is_not_there_before_it_is_whole(folder, monkeypatch):
    def look(_):
        assert steps(folder) == []

    with monkeypatch.context() as patched:
        patched.setattr(store, "_seal", lambda path, real=store._seal: (look(path), real(path))[1])
        save(folder, checkpoint())
    assert steps(folder) == [7]


# ---- damaged -------------------------------------------------------------------------------------


def test_any_flipped_bit_is_found(folder):
    path = save(folder, checkpoint(rng=True))
    generator = torch.Generator().manual_seed(5)
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        for place in torch.randint(0, len(whole), (41,), generator=generator).tolist():
            flipped = bytearray(whole)
            flipped[place] ^= 1 << (place % 8)
            file.write_bytes(flipped)
            with pytest.raises(Damaged):
                load(path)
        file.write_bytes(whole)
    load(path)


def test_any_truncation_is_found(folder):
    path = save(folder, checkpoint())
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        # The manifest's last byte is the end of its last line, which says nothing.
        for length in {0, 1, len(whole) // 2, len(whole) - 2}:
            file.write_bytes(whole[:length])
            with pytest.raises(Damaged):
                load(path)
        file.write_bytes(whole)


def test_any_missing_file_is_found(folder):
    path = save(folder, checkpoint(rng=True))
    for file in sorted(path.iterdir()):
        whole = file.read_bytes()
        file.unlink()
        with pytest.raises(Damaged, match=str(path)):
            load(path)
        file.write_bytes(whole)


@pytest.mark.parametrize("manifest", ["{}", "[]", "3", "null", '{"weights.safetensors": 3}'])
def test_a_manifest_that_vouches_for_too_little_is_no_manifest(folder, manifest):
    path = save(folder, checkpoint())
    (path / "MANIFEST.json").write_text(manifest)
    with pytest.raises(Damaged):
        load(path)


def test_another_format_is_not_guessed_at(folder, monkeypatch):
    monkeypatch.setattr(store, "FORMAT", 2)
    path = save(folder, checkpoint())
    monkeypatch.undo()
    with pytest.raises(Damaged, match="has format 2; this headway reads 1"):
        load(path)


def test_the_newest_whole_checkpoint_is_used_and_the_damaged_are_named(folder):
    for step, value in ((3, 1.0), (7, 2.0), (11, 3.0), (13, 4.0)):
        save(folder, checkpoint(step, value))
    weights = folder / "00000013" / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    (folder / "00000011" / "position.json").unlink()
    found, damaged = load_newest(folder)
    assert_same(checkpoint(7, 2.0), found)
    assert len(damaged) == 2
    assert damaged[0] == f"{weights} has changed since it was written"
    assert damaged[1].startswith(f"{folder / '00000011'} is not whole: ")


def test_without_a_whole_checkpoint_there_is_none(folder):
    assert load_newest(folder) == (None, [])
    save(folder, checkpoint())
    (folder / "00000007" / "MANIFEST.json").unlink()
    found, damaged = load_newest(folder)
    assert found is None
    assert len(damaged) == 1


@pytest.mark.parametrize("foreign", ["7", "99999999"])
def test_what_is_called_like_a_checkpoint_and_is_none_is_passed_over(folder, foreign):
    save(folder, checkpoint())
    (folder / foreign).write_text("")
    found, damaged = load_newest(folder)
    assert found.step == 7
    assert len(damaged) == (foreign == "99999999")


# ---- kept ----------------------------------------------------------------------------------------


def test_pruning_keeps_what_is_named_and_what_is_no_checkpoint(folder):
    for step in (3, 7, 11, 13):
        save(folder, checkpoint(step))
    (folder / "notes.txt").write_text("mine")
    (folder / ".00000005.99").mkdir()
    prune(folder, {7, 13, 17})
    assert sorted(path.name for path in folder.iterdir()) == ["00000007", "00000013", "notes.txt"]
