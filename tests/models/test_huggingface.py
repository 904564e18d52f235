"""Checkpoint folders: what transformers saves is read, what is saved transformers loads, with equal logits."""

import importlib.util
import json
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from headway.config.contracts import DataSpec
from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.init import huggingface
from headway.models import bert, gpt, mlp
from headway.models._huggingface import save_huggingface

pytestmark = [
    pytest.mark.quick,
    pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed here"),
]

B, T, V, C = 2, 7, 31, 5
TEXT = DataSpec(input_kind="tokens", input_shape=(T,), vocab_size=V)
MASKED = DataSpec(input_kind="tokens", input_shape=(T,), vocab_size=V, masked=True)
CLASSES = DataSpec(
    input_kind="tokens", input_shape=(T,), vocab_size=V, num_classes=C, class_names=("a", "b", "c", "d", "e")
)
SIZES = {"num_layers": 2, "num_heads": 2, "width": 22}


def config(kind, **settings):
    module = {"gpt": gpt, "bert": bert, "mlp": mlp}[kind]
    return validate_section(module.Config, {"kind": kind, **SIZES, **settings}, path="model")


def stir(net):
    """Draws every weight, norms and biases included, so that none is at a value that hides a mistake."""
    with torch.no_grad():
        for index, weight in enumerate(net.parameters()):
            weight.normal_(0, 0.2, generator=torch.Generator().manual_seed(index))
    return net.eval()


def load(net, folder):
    """Sets what the folder gives, as the initialization does; returns the names of the rest."""
    given = huggingface.Config(kind="huggingface", folder=str(folder)).given(net)
    left = net.load_state_dict(given, strict=False)
    assert not left.unexpected_keys
    return set(left.missing_keys)


def their_gpt(norm="pre", **settings):
    from transformers import GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel

    pre = norm == "pre"
    sizes = {"vocab_size": V, "n_positions": T, "n_embd": 22, "n_layer": 2, "n_head": 2}
    made = (GPT2Config if pre else OpenAIGPTConfig)(**{**sizes, **settings})
    return stir((GPT2LMHeadModel if pre else OpenAIGPTLMHeadModel)(made))


def their_bert(name="BertForPreTraining", **settings):
    import transformers

    sizes = {
        "vocab_size": V, "max_position_embeddings": T, "hidden_size": 22, "num_hidden_layers": 2,
        "num_attention_heads": 2, "intermediate_size": 88,
    }  # fmt: skip
    return stir(getattr(transformers, name)(transformers.BertConfig(**{**sizes, **settings})))


@pytest.fixture
def token_BT():  # noqa: N802 - names its axes
    tokens = torch.randint(1, V, (B, T), generator=torch.Generator().manual_seed(5))
    tokens[1, -2:] = 0
    return tokens


# ---- read ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shard", ["5GB", "20KB"])
@pytest.mark.parametrize("tied", [True, False])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_gpt_that_transformers_saved_gives_its_logits(tmp_path, token_BT, norm, tied, shard):
    theirs = their_gpt(norm, tie_word_embeddings=tied)
    theirs.save_pretrained(tmp_path, max_shard_size=shard)
    assert (tmp_path / "model.safetensors.index.json").exists() == (shard == "20KB")
    ours = config("gpt", norm=norm, tied=tied).build(TEXT).eval()
    assert load(ours, tmp_path) == set()
    torch.testing.assert_close(ours(token_BT), theirs(token_BT).logits, rtol=0, atol=1e-4)
    assert (ours.output.weight is ours.token_embedding.weight) == tied


def test_a_published_gpt2_without_prefix_and_with_its_masks_is_read(tmp_path, token_BT):
    theirs = their_gpt()
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    bare = {name.removeprefix("transformer."): value for name, value in load_file(path).items()}
    bare |= {f"h.{index}.attn.bias": torch.ones(1, 1, T, T) for index in range(2)}
    assert "wte.weight" in bare
    save_file(bare, path)
    ours = config("gpt").build(TEXT).eval()
    assert load(ours, tmp_path) == set()
    torch.testing.assert_close(ours(token_BT), theirs(token_BT).logits, rtol=0, atol=1e-4)


def test_an_untied_net_starts_from_a_tied_checkpoint(tmp_path, token_BT):
    theirs = their_gpt()
    theirs.save_pretrained(tmp_path)
    ours = config("gpt", tied=False).build(TEXT).eval()
    assert load(ours, tmp_path) == set()
    torch.testing.assert_close(ours(token_BT), theirs(token_BT).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("old", [True, False])
def test_a_bert_that_transformers_saved_gives_its_logits(tmp_path, token_BT, old):
    theirs = their_bert()
    theirs.save_pretrained(tmp_path)
    if old:
        path = tmp_path / "model.safetensors"
        weights = load_file(path)
        renamed = {
            name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): value
            for name, value in weights.items()
        }
        assert set(renamed) != set(weights)
        save_file(renamed, path)
    ours = config("bert").build(MASKED).eval()
    assert load(ours, tmp_path) == set()
    out, expected = ours(token_BT), theirs(token_BT, attention_mask=token_BT != 0)
    real_BT = token_BT != 0
    torch.testing.assert_close(out.token_logits[real_BT], expected.prediction_logits[real_BT], rtol=0, atol=1e-4)
    torch.testing.assert_close(out.next_logits, expected.seq_relationship_logits, rtol=0, atol=1e-4)


def test_a_classifier_that_transformers_saved_gives_its_logits(tmp_path, token_BT):
    theirs = their_bert("BertForSequenceClassification", num_labels=C)
    theirs.save_pretrained(tmp_path)
    ours = config("bert").build(CLASSES).eval()
    assert load(ours, tmp_path) == set()
    torch.testing.assert_close(ours(token_BT), theirs(token_BT, attention_mask=token_BT != 0).logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("saved", "settings", "spec", "drawn"),
    [
        ("BertForPreTraining", {}, CLASSES, {"classifier"}),
        ("BertForSequenceClassification", {"num_labels": C + 1}, CLASSES, {"classifier"}),
        ("BertForMaskedLM", {}, MASKED, {"pooler", "next_head"}),
        ("BertModel", {}, MASKED, {"token_head", "next_head"}),
    ],
)
def test_heads_that_a_checkpoint_lacks_are_left_to_the_draw(tmp_path, token_BT, saved, settings, spec, drawn):
    theirs = their_bert(saved, **settings)
    theirs.save_pretrained(tmp_path)
    ours = config("bert").build(spec).eval()
    missing = load(ours, tmp_path)
    assert {name.partition(".")[0] for name in missing} == drawn
    body = theirs if saved == "BertModel" else theirs.bert
    expected = body(token_BT, attention_mask=token_BT != 0).last_hidden_state
    torch.testing.assert_close(ours.encode(token_BT)[token_BT != 0], expected[token_BT != 0], rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_the_full_gpt_gives_the_logits_of_transformers(tmp_path, norm):
    from transformers import GPT2Config, GPT2LMHeadModel, OpenAIGPTConfig, OpenAIGPTLMHeadModel

    pre = norm == "pre"
    theirs = (GPT2LMHeadModel if pre else OpenAIGPTLMHeadModel)((GPT2Config if pre else OpenAIGPTConfig)()).eval()
    theirs.save_pretrained(tmp_path)
    positions, tokens = (1024, 50_257) if pre else (512, 40_478)
    spec = DataSpec(input_kind="tokens", input_shape=(positions,), vocab_size=tokens)
    ours = config("gpt", num_layers=12, num_heads=12, width=768, norm=norm).build(spec).eval()
    assert load(ours, tmp_path) == set()
    token_BT = torch.randint(0, tokens, (1, 13), generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(ours(token_BT), theirs(token_BT).logits, rtol=0, atol=1e-4)


# ---- written -------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [{}, {"bias": False}, {"tied": False}])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_a_gpt_that_is_saved_gives_its_logits_in_transformers(tmp_path, token_BT, norm, settings):
    from transformers import AutoModelForCausalLM

    made = config("gpt", norm=norm, max_positions=11, **settings)
    ours = stir(made.build(TEXT))
    save_huggingface(made, ours, TEXT, tmp_path / "new")
    theirs, report = AutoModelForCausalLM.from_pretrained(tmp_path / "new", output_loading_info=True)
    assert not any(report.values())
    torch.testing.assert_close(theirs.eval()(token_BT).logits, ours(token_BT), rtol=0, atol=1e-4)
    assert theirs.config.n_positions == 11


def test_a_bert_that_is_saved_gives_its_logits_in_transformers(tmp_path, token_BT):
    from transformers import BertForPreTraining

    made = config("bert", hidden=53)
    ours = stir(made.build(MASKED))
    save_huggingface(made, ours, MASKED, tmp_path)
    theirs, report = BertForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    out, expected = ours(token_BT), theirs.eval()(token_BT, attention_mask=token_BT != 0)
    real_BT = token_BT != 0
    torch.testing.assert_close(expected.prediction_logits[real_BT], out.token_logits[real_BT], rtol=0, atol=1e-4)
    torch.testing.assert_close(expected.seq_relationship_logits, out.next_logits, rtol=0, atol=1e-4)


@pytest.mark.parametrize("spec", [CLASSES, DataSpec("tokens", (T,), vocab_size=V, num_classes=3)])
def test_a_classifier_that_is_saved_gives_its_logits_in_transformers(tmp_path, token_BT, spec):
    from transformers import AutoModelForSequenceClassification

    made = config("bert")
    ours = stir(made.build(spec))
    save_huggingface(made, ours, spec, tmp_path)
    theirs, report = AutoModelForSequenceClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    torch.testing.assert_close(
        theirs.eval()(token_BT, attention_mask=token_BT != 0).logits, ours(token_BT), rtol=0, atol=1e-4
    )
    assert list(theirs.config.id2label.values()) == list(spec.class_names or "012")


@pytest.mark.parametrize("kind", ["gpt", "bert"])
def test_what_is_saved_is_read_to_the_bit(tmp_path, kind):
    spec, made = (TEXT, config("gpt")) if kind == "gpt" else (MASKED, config("bert"))
    saved = stir(made.build(spec))
    save_huggingface(made, saved, spec, tmp_path)
    ours = made.build(spec)
    assert load(ours, tmp_path) == set()
    for name, value in saved.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name


def test_reading_and_writing_want_no_transformers(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)  # an import of it fails
    made = config("gpt")
    net = made.build(TEXT)
    save_huggingface(made, net, TEXT, tmp_path)
    assert load(net, tmp_path) == set()


# ---- refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"num_layers": 3}, "model.num_layers: is 3, and the checkpoint in {folder} has 2; set it to 2"),
        ({"num_heads": 11}, "model.num_heads: is 11, and the checkpoint in {folder} has 2; set it to 2"),
        ({"width": 26}, "model.width: is 26, and the checkpoint in {folder} has 22; set it to 22"),
        ({"max_positions": 11}, "model.max_positions: is 11, and the checkpoint in {folder} has 7; set it to 7"),
        (
            {"norm": "post"},
            "init.folder: {folder} holds a gpt2, and this net reads a openai-gpt; set model.norm to pre",
        ),
        ({"bias": False}, "model.bias: is false, and the checkpoint in {folder} has biases; set it to true"),
    ],
)
def test_a_net_of_other_sizes_is_told_the_setting(tmp_path, settings, line):
    their_gpt().save_pretrained(tmp_path)
    with pytest.raises(UserError) as caught:
        load(config("gpt", **settings).build(TEXT), tmp_path)
    assert str(caught.value) == line.format(folder=tmp_path)


def test_a_vocabulary_of_another_size_is_told_the_setting(tmp_path):
    their_gpt(vocab_size=V + 6).save_pretrained(tmp_path)
    with pytest.raises(
        UserError, match=r"^data\.vocabulary: has 31 tokens, and the checkpoint in .* has 37; set it to"
    ):
        load(config("gpt").build(TEXT), tmp_path)


def test_a_net_that_computes_something_else_is_refused(tmp_path):
    their_gpt(activation_function="relu").save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"^init\.folder: .* has activation_function 'relu' in its config\.json"):
        load(config("gpt").build(TEXT), tmp_path)


def test_a_bert_is_no_gpt(tmp_path):
    their_bert().save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"^init\.folder: .* holds a bert, and this net reads a gpt2$"):
        load(config("gpt").build(TEXT), tmp_path)


def test_a_damaged_folder_is_named(tmp_path):
    ours = config("gpt").build(TEXT)
    with pytest.raises(UserError, match=rf"^init\.folder: {tmp_path} has no config\.json"):
        load(ours, tmp_path)
    theirs = their_gpt()
    theirs.save_pretrained(tmp_path)
    path = tmp_path / "model.safetensors"
    weights = load_file(path)
    for name, damaged in {
        "it has nothing for transformer.wpe.weight": {k: v for k, v in weights.items() if "wpe" not in k},
        r"it has \(7, 21\) for": {
            **weights,
            "transformer.wpe.weight": weights["transformer.wpe.weight"][:, 1:].clone(),
        },
    }.items():
        save_file(damaged, path)
        with pytest.raises(UserError, match=rf"^init\.folder: {tmp_path} is damaged: {name}"):
            load(ours, tmp_path)
    path.write_bytes(b"no weights")
    with pytest.raises(UserError, match=rf"^init\.folder: the weights in {tmp_path} cannot be read"):
        load(ours, tmp_path)
    path.unlink()
    with pytest.raises(UserError, match=rf"^init\.folder: {tmp_path} has no model\.safetensors"):
        load(ours, tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "gpt2"})[:-3])
    with pytest.raises(UserError, match=r"^init\.folder: .*config\.json cannot be read"):
        load(ours, tmp_path)


def test_a_net_without_such_checkpoints_is_refused(tmp_path):
    spec = DataSpec("features", (7,), num_classes=3)
    made = mlp.Config(kind="mlp", hidden=(3,))
    with pytest.raises(
        UserError, match=r"^init\.kind: huggingface has weights for gpt and bert, and this net is a MLP"
    ):
        load(made.build(spec), tmp_path)
    with pytest.raises(UserError, match=r"^--to: huggingface is for gpt and bert, and this run's model is mlp"):
        save_huggingface(made, made.build(spec), spec, tmp_path)
