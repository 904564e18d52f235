"""Which checkpoint of which run is used, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

from headway.config.errors import UserError
from headway.evaluate.loading import load_run
from headway.evaluate.selection import select


def test_the_best_checkpoint_is_loaded_without_its_data(runs, moved):
    folder = moved("lstm")
    tree = yaml.safe_load((folder / "recipe.yaml").read_text())
    tree["data"]["path"] = "/nowhere/at/all.txt"
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    loaded, known = load_run(select(folder)), runs.load("lstm")
    assert loaded.selection.step == json.loads((folder / "status.json").read_text())["best"]["step"]
    assert not loaded.net.training
    token_BT = torch.tensor([[1, 2, 3]])
    assert torch.equal(loaded.net(token_BT), known.net(token_BT))


@pytest.mark.parametrize(
    ("checkpoint", "message"),
    [("7", "lstm has none of step 7; there is .*20"), ("newest", "'newest' should be best, last or a step")],
)
def test_a_checkpoint_that_is_not_there_is_refused(runs, checkpoint, message):
    with pytest.raises(UserError, match=f"--checkpoint: {message}"):
        runs.select("lstm", checkpoint=checkpoint)


def test_a_run_before_its_first_checkpoint_says_what_to_do(moved):
    folder = moved("lstm")
    (folder / "checkpoints").rename(folder / "elsewhere")
    with pytest.raises(UserError, match=r"lstm: has no checkpoint \(it is done\); headway fit --resume lstm makes one"):
        select(folder)


def test_a_run_before_its_first_validation_has_a_last_checkpoint_and_no_best(moved):
    folder = moved("lstm")
    status = json.loads((folder / "status.json").read_text())
    del status["best"]
    (folder / "status.json").write_text(json.dumps(status))
    assert select(folder, checkpoint="last").step == 20
    with pytest.raises(UserError, match="lstm has no best one yet, before its first validation; use last"):
        select(folder)


def test_damaged_weights_are_refused(moved):
    folder = moved("lstm")
    selection = select(folder)
    weights = selection.checkpoint / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x00")
    with pytest.raises(UserError, match=r"weights.safetensors has changed since it was written; choose another"):
        load_run(selection)


def test_weights_of_another_net_are_refused_in_one_line(moved):
    folder = moved("lstm")
    tree = yaml.safe_load((folder / "recipe.yaml").read_text())
    tree["model"]["hidden"] = 19
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(
        UserError, match=r"does not fit the net that this headway builds from the recipe \(size mismatch"
    ):
        load_run(select(folder))


def test_code_of_ones_own_is_not_imported_unless_it_is_trusted(moved):
    folder = moved("lstm")
    tree = yaml.safe_load((folder / "recipe.yaml").read_text())
    tree["model"] = {"kind": "somebody.elses:Config"}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(tree))
    with pytest.raises(UserError, match=r"lstm/recipe.yaml: model.kind: .* add --trust somebody.elses"):
        select(folder)
