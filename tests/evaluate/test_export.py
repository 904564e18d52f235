"""What is exported gives the run's outputs, or nothing is left of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from headway.config.errors import HeadwayError, UserError
from headway.evaluate import export as module
from headway.evaluate.export import example_inputs, export, load_exported
from headway.evaluate.formats import check_format

# What torch and the exporters' packages say of themselves.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")


@pytest.mark.parametrize("name", ["mlp", "lstm"])
def test_safetensors_load_without_the_run(runs, tmp_path, name):
    loaded = runs.load(name)
    result = export(loaded, "safetensors", tmp_path / "out")
    assert result.difference == 0.0
    assert result.files == ["config.json", "model.safetensors"]
    net = load_exported(tmp_path / "out")
    (x,) = example_inputs(loaded.spec, 5)
    assert torch.equal(net(x), loaded.net(x))
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["run"] == name
    assert config["reading"] == loaded.reading


def test_weights_in_bf16_are_exported_as_they_are(runs, tmp_path):
    recipe = {"model": "logistic", "data": "digits", "trainer": {"precision": "bf16"}}
    runs.fit("small", recipe)
    export(runs.load("small"), "safetensors", tmp_path / "out")
    assert {weight.dtype for weight in load_file(tmp_path / "out" / "model.safetensors").values()} == {torch.bfloat16}


@pytest.mark.parametrize(
    "name", ["mlp", pytest.param("lstm", marks=pytest.mark.slow), pytest.param("gpt", marks=pytest.mark.slow)]
)
def test_an_onnx_graph_gives_the_nets_outputs_for_any_number_of_rows(runs, tmp_path, name):
    import onnxruntime

    loaded = runs.load(name)
    result = export(loaded, "onnx", tmp_path / "out")
    assert result.difference < 1e-5
    assert result.files == ["config.json", "model.onnx"]
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    (x,) = example_inputs(loaded.spec, 7)
    (found,) = session.run(["output"], {"input": x.numpy()})
    np.testing.assert_allclose(found, loaded.net(x).detach().numpy(), rtol=1e-4, atol=1e-5)


def test_transformers_reads_what_is_exported_to_it(runs, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    loaded = runs.load("bpe")
    result = export(loaded, "huggingface", tmp_path / "out")
    assert result.checked_with.startswith("transformers ")
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    tokens = AutoTokenizer.from_pretrained(tmp_path / "out")("the cat sat", return_tensors="pt")["input_ids"]
    assert torch.allclose(theirs(tokens).logits, loaded.net(tokens), atol=1e-4)


def test_without_transformers_our_own_reader_checks_and_says_so(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    result = export(runs.load("bpe"), "huggingface", tmp_path / "out")
    assert result.checked_with == "headway's own reader, for transformers is not installed,"
    assert result.difference == 0.0


def test_a_net_that_transformers_has_not_is_refused(runs, tmp_path):
    with pytest.raises(UserError, match="--to: huggingface is for gpt and bert, and this run's model is mlp"):
        export(runs.load("mlp"), "huggingface", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_export_that_gives_other_outputs_is_not_kept(runs, tmp_path, monkeypatch):
    def spoilt(checkpoint):
        return {name: weight + 0.1 for name, weight in read(checkpoint).items()}

    read = module.read_weights
    monkeypatch.setattr(module, "read_weights", spoilt)
    with pytest.raises(HeadwayError, match=r"export: headway gives outputs that differ by .* nothing was written"):
        export(runs.load("mlp"), "safetensors", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_net_that_is_no_number_is_not_kept(runs, tmp_path, moved):
    loaded = runs.load("mlp")
    first = next(iter(loaded.net.parameters()))
    with torch.no_grad():
        first.fill_(torch.nan)
    with pytest.raises(HeadwayError, match="differ by inf"):
        export(loaded, "safetensors", tmp_path / "out")


def test_the_runs_own_folder_is_replaced_and_another_is_not(runs, tmp_path):
    loaded = runs.load("mlp")
    first, again = export(loaded, "safetensors"), export(loaded, "safetensors")
    assert first.folder == again.folder == str(loaded.selection.run.path / "export" / "safetensors")
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"--out: .* is there already; name an empty folder or a new one"):
        export(loaded, "safetensors", tmp_path)
    with pytest.raises(UserError, match=r"--out: .* cannot be written"):
        export(loaded, "safetensors", tmp_path / "notes.txt" / "below")


def test_formats_are_known_and_name_what_they_need(monkeypatch):
    from headway.evaluate import formats

    assert check_format("onnx") == "onnx"
    with pytest.raises(UserError, match=r"--to: 'onx' is not known; did you mean onnx\?"):
        check_format("onx")
    monkeypatch.setattr(formats, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(UserError, match=r"--to: onnx needs onnxscript; pip install 'headway\[onnx\]'"):
        check_format("onnx")


def test_a_folder_that_is_no_export_is_refused(tmp_path):
    with pytest.raises(UserError, match="is no folder that headway export --to safetensors wrote"):
        load_exported(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model": {"kind": "somebody.elses:Config"}}))
    with pytest.raises(UserError, match=r"add --trust somebody.elses"):
        load_exported(tmp_path)
