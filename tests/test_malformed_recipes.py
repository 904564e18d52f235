"""Whatever is wrong with a recipe: one line, exit code 2, no traceback, nothing written."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from headway.cli import run
from headway.config.overrides import override

MLP = {
    "name": "good",
    "model": {"kind": "mlp", "hidden": [3, 5], "activation": "relu", "dropout": 0.1, "input_dropout": 0.1},
    "data": {"kind": "digits", "seed": 3, "layout": "features", "validation": 0.1, "test": 0.1},
    "init": {"kind": "kaiming", "seed": 3, "bias": 0.0, "gain": 1.0},
    "optim": {"kind": "adamw", "lr": 0.1, "weight_decay": 0.1, "betas": [0.9, 0.99], "eps": 1e-8,
              "schedule": {"kind": "cosine", "warmup_steps": 2, "final": 0.1}},
    "objective": {"kind": "classify", "label_smoothing": 0.1},
    "trainer": {"seed": 3, "accelerator": "cpu", "devices": 1, "nodes": 1, "max_steps": 2, "max_epochs": 1,
                "batch_size": 7, "micro_batch": 3, "eval_batch_size": 11, "precision": "fp32", "clip_norm": 1.0,
                "validate_every": 2, "checkpoint_every": 2, "monitor": "val/loss", "monitor_mode": "min",
                "early_stopping": {"patience": 3, "min_delta": 0.0}, "rng": "keyed", "compile": False,
                "steps_per_call": 2, "threads": 1, "timeout_s": 60},
    "strategy": {"kind": "single"},
    "track": {"wandb": "disabled", "project": "p", "entity": "e", "group": "g", "tags": ["t"], "notes": "n",
              "every": 1, "wandb_every": 10, "health_every": 5},
    "sweep": {"metric": "val/loss", "mode": "min", "trials": 2, "searcher": "random", "seed": 3, "max_concurrent": 1,
              "gpus_per_trial": 0.5, "retries": 1, "scheduler": {"kind": "asha", "grace_steps": 2, "reduction": 3},
              "space": {"optim.lr": {"loguniform": [0.001, 0.1]}}},
}  # fmt: skip
CONVNET = {
    **{key: MLP[key] for key in ("name", "init", "trainer", "track")},
    "model": {"kind": "convnet", "filters": [2, 3], "filter_size": 3, "padding": 1, "pool_size": 2, "hidden": 5,
              "activation": "tanh", "dropout": 0.1},
    "data": {"kind": "digits", "layout": "image"},
    "optim": {"kind": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True, "schedule": "linear"},
}  # fmt: skip
GPT = {
    **{key: MLP[key] for key in ("name", "optim", "trainer", "track")},
    "model": {"kind": "gpt", "num_layers": 1, "num_heads": 2, "width": 6, "max_positions": 7, "dropout": 0.1,
              "bias": True, "tied": True},
    "data": {"kind": "text", "sequence_length": 7, "vocabulary": "character", "max_characters": 10007},
    "init": {"kind": "normal", "std": 0.02},
    "strategy": {"kind": "deepspeed", "stage": 2, "offload": False},
}  # fmt: skip
GOOD = {"mlp": MLP, "convnet": CONVNET, "gpt": GPT}

SMALL = {
    **{key: MLP[key] for key in ("name", "track")},
    "init": "kaiming",
    "optim": {"kind": "sgd", "lr": 0.1},
    "trainer": {"max_steps": 2, "batch_size": 7},
}
IMAGES = {**SMALL, "data": {"kind": "digits", "layout": "image"}}
TEXT = {**SMALL, "data": {"kind": "text", "sequence_length": 7, "max_characters": 10007}}
SECTIONS = {
    "regularize": {
        **IMAGES,
        "model": "logistic",
        "regularize": {
            "penalty": {"l1": 0.1, "l2": 0.1}, "max_norm": {"limit": 2.0},
            "noise": {"input": 0.1, "weight": 0.1, "gradient": 0.1, "gradient_decay": 0.5},
            "augment": {"translate": 1, "rotate": 10.0, "brightness": 0.1, "flip": True},
            "adversarial": {"epsilon": 0.1, "share": 0.5}, "prune": {"sparsity": 0.5, "begin": 0, "end": 5, "every": 2},
        },
    },
    "optim": {
        **IMAGES,
        "model": "logistic",
        "trainer": {"max_steps": 2, "batch_size": 1257},
        "optim": {"kind": "lbfgs", "lr": 1.0},
    },
    "objective": {**IMAGES, "model": "logistic", "objective": {"kind": "classify", "loss": "squared"}},
}  # fmt: skip
"""Good recipes by the section that is made wrong."""
NETS = {
    "resnet": {**IMAGES, "model": {"kind": "resnet", "depth": 20, "stem": "cifar", "shortcut": "zero_pad", "width": 3}},
    "autoencoder": {**SMALL, "data": "digits", "model": {"kind": "autoencoder", "hidden": [5, 3], "activation": "tanh",
                                                         "corruption": "mask", "amount": 0.3, "tied": True}},
    "ngram": {**TEXT, "model": {"kind": "ngram", "context": 2, "embedding": 3, "hidden": 5, "direct": True}},
    "lstm": {**TEXT, "model": {"kind": "lstm", "hidden": 5, "num_layers": 2, "embedding": 5, "tied": True,
                               "dropout": 0.1, "recurrent_dropout": 0.1, "variational": True, "forget_bias": 1.0}},
    "transformer": {**SMALL, "data": {"kind": "translation", "vocab_size": 300, "max_length": 11},
                    "model": {"kind": "transformer", "num_layers": 1, "num_heads": 2, "width": 6, "norm": "pre"}},
    "bert": {**SMALL, "data": {"kind": "masked_text", "vocab_size": 261, "max_characters": 10007},
             "model": {"kind": "bert", "num_layers": 1, "num_heads": 2, "width": 6}},
}  # fmt: skip
SECTIONS |= {f"model: {net}": tree for net, tree in NETS.items()}


# ---- every field with every wrong value ------------------------------------------------------------


def leaves(tree, prefix=""):
    for key, value in tree.items():
        path = f"{prefix}{key}"
        if isinstance(value, dict) and value and key != "space":
            yield from leaves(value, f"{path}.")
        else:
            yield path, value


def wrong_values(value):
    """Returns values of other types, and of the same type that no field takes."""
    if isinstance(value, bool):
        return [1, "yes", [True], {"a": True}]
    if isinstance(value, int):
        return ["3", 2.5, True, [3], {"a": 3}]
    if isinstance(value, float):
        return ["0.1", True, [0.1], float("nan"), float("inf"), {"a": 1}]
    if isinstance(value, str):
        return [3, 0.5, [value], {"zzz": value}]
    if isinstance(value, list):
        return [3, "abc", [[]], [{}], [None]]
    return [3, "abc", [3]]


OUT_OF_RANGE = {
    "mlp": {
        "name": ["", "a/b", "../up", ".hidden", "-x", "x" * 101, "a b", "a\nb"],
        "model.hidden": [[0], [-3], [3, 2.5], ["3"], [True]],
        "model.activation": ["rellu", "", "RELU"],
        "model.dropout": [-0.1, 1, 1.5, 1e300],
        "model.input_dropout": [-1, 1.0],
        "data.layout": ["imag"],
        "data.validation": [-0.1, 1.0, 0.95],
        "data.test": [-0.1, 1.5, 0.95],
        "init.bias": [-1.1, 1.5],
        "init.gain": [0, -1],
        "optim.lr": [0, -1e-3],
        "optim.weight_decay": [-1],
        "optim.betas": [[0.9], [0.9, 1.0], [-0.1, 0.9], [0.9, 0.99, 0.999]],
        "optim.eps": [0],
        "optim.schedule": ["cosin", 3, [], {"kind": "cosine", "warmup": 3}],
        "optim.schedule.kind": ["", "step"],
        "optim.schedule.warmup_steps": [-1],
        "optim.schedule.final": [-0.1, 1.1],
        "objective.label_smoothing": [1.0, -0.1],
        "trainer.seed": [-1, 2**63],
        "trainer.accelerator": ["gpu", "tpu", "CPU"],
        "trainer.devices": [0, -1, "all"],
        "trainer.nodes": [0],
        "trainer.max_steps": [0, -5],
        "trainer.max_epochs": [0],
        "trainer.batch_size": [0, -7],
        "trainer.micro_batch": [0],
        "trainer.eval_batch_size": [0],
        "trainer.precision": ["fp8", "32", "bf16_mixed", "fp16-mixed"],
        "trainer.clip_norm": [0, -1],
        "trainer.validate_every": [0],
        "trainer.checkpoint_every": [0],
        "trainer.monitor_mode": ["minimum"],
        "trainer.early_stopping": [3, {}, {"patience": 0}, {"patience": 1, "delta": 0}],
        "trainer.early_stopping.min_delta": [-1],
        "trainer.rng": ["slow"],
        "trainer.steps_per_call": [0, "many"],
        "trainer.threads": [0],
        "trainer.timeout_s": [0],
        "strategy.kind": ["dp", "ddpp", "singel"],
        "track.wandb": ["on", "offlin"],
        "track.project": ["", "x" * 129],
        "track.tags": ["one", [1]],
        "track.every": [0],
        "sweep.trials": [0],
        "sweep.scheduler": [
            "hyperbandd",
            {"kind": "asha", "reduction": 1},
            {"kind": "asha", "quantile": 0.3},
            {"kind": "pbt", "quantile": 0.6},
            {"kind": "pbt", "resample": 1.5},
            {"kind": "pbt", "interval_steps": 0},
            {"kind": "hyperband", "grace_steps": 3},
        ],
        "sweep.gpus_per_trial": [0],
        "sweep.retries": [-1],
        "sweep.searcher": ["grid", "bayes"],
        "sweep.space": [
            {},
            {"optim.lr": {}},
            {"optim.lr": {"uniform": [2, 1]}},
            {"optim.lr": {"choice": []}},
            {"optim.lr": {"quniform": [0, 1, 2]}},
            {"optim.lr": {"uniform": [1, 2], "when": {"model.dropout": 0.1}}},
        ],
    },
    "convnet": {
        "model.filters": [[3], [3, 5, 7], [0, 3]],
        "model.filter_size": [0, 11],
        "model.padding": [-1],
        "model.pool_size": [0, 5],
        "model.hidden": [0],
        "data.layout": ["features"],
        "data": ["breast_cancer", "text"],
        "optim.momentum": [1.0, -0.1, 0.0],
        "optim.nesterov": ["yes"],
    },
    "gpt": {
        "model.num_layers": [0],
        "model.num_heads": [0, 5],
        "model.width": [0, 7],
        "model.max_positions": [0, 5],
        "data.sequence_length": [0, -1, 8],
        "data.vocabulary": ["words"],
        "data.path": ["/nowhere/at/all.txt"],
        "data": ["digits", "xor"],
        "init.std": [-1],
        "strategy.stage": [0, 4, 2.0, "2"],
        "strategy.offload": ["no"],
        "trainer.precision": ["fp64"],
        "objective": ["classify", "regress"],
    },
    "regularize": {
        "regularize.penalty.l1": [-0.1],
        "regularize.max_norm.limit": [0, -1],
        "regularize.noise.input": [-1],
        "regularize.augment.translate": [-1, 1.5],
        "regularize.augment.rotate": [-1, 181],
        "regularize.augment.border": ["zero"],
        "regularize.adversarial.epsilon": [0],
        "regularize.adversarial.share": [1.1],
        "regularize.prune.sparsity": [0, 1],
        "regularize.prune.every": [0],
        "regularize.penaltyy": [{}],
        "regularize.sparse_activations": [{"l1": 0.1}],
        "data.layout": ["features"],
    },
    "optim": {"trainer.batch_size": [7], "regularize": [{"noise": {"gradient": 0.1}}]},
    "objective": {"objective.loss": ["hinge"], "objective.label_smoothing": [0.1]},
    "model: resnet": {"model.depth": [0, 21], "model.shortcut": ["zero"], "model.width": [0], "data": ["xor"]},
    "model: autoencoder": {"model.hidden": [[], [0]], "model.amount": [-0.1], "data": ["text"]},
    "model: ngram": {"model.context": [0], "model.hidden": [0], "data": ["digits"]},
    "model: lstm": {"model.embedding": [3], "model.dropout": [1.0], "data": ["digits"]},
    "model: transformer": {"model.num_heads": [4], "model.norm": ["both"], "data": ["digits", "text"]},
    "model: bert": {"model.num_heads": [4], "model.max_positions": [5], "data": ["digits", "text"]},
}  # fmt: skip


def typo(name):
    return name[:-2] + name[-1] + name[-2] if len(name) > 3 and name[-1] != name[-2] else name + "x"


def trees():
    """Yields (id, tree) of every wrong recipe that is still YAML."""
    for base, good in GOOD.items():
        for path, value in leaves(good):
            for wrong in wrong_values(value):
                yield f"{base}: {path}={wrong!r}", override(good, {path: wrong})
            if "." in path:
                section, _, key = path.rpartition(".")
                if key != "kind":
                    yield f"{base}: {section}.{typo(key)}", override(good, {f"{section}.{typo(key)}": value})
        for path, wrongs in OUT_OF_RANGE[base].items():
            for wrong in wrongs:
                yield f"{base}: {path}={wrong!r}", override(good, {path: wrong})
        for section in good:
            if section != "name":
                yield (
                    f"{base}: {typo(section)} for {section}",
                    {typo(section) if k == section else k: v for k, v in good.items()},
                )
            if section in ("model", "data", "optim", "trainer"):
                yield f"{base}: no {section}", {k: v for k, v in good.items() if k != section}
                yield f"{base}: {section} is null", {**good, section: None}
            for wrong in (3, [], "nosuch", True, {"kind": "nosuch"}, {"kind": 3}, {"kind": None}):
                if section != "name" or wrong in (3, []):
                    yield f"{base}: {section}={wrong!r}", {**good, section: wrong}
        for required in ("trainer.batch_size", "optim.lr", "model.kind", "data.kind", "optim.kind"):
            section, key = required.split(".")
            yield f"{base}: no {required}", {**good, section: {k: v for k, v in good[section].items() if k != key}}
    for name, good in SECTIONS.items():
        section = name.partition(":")[0]
        for path, value in leaves(good[section], f"{section}."):
            for wrong in wrong_values(value)[:3]:
                yield f"{name}: {path}={wrong!r}", override(good, {path: wrong})
        for path, wrongs in OUT_OF_RANGE[name].items():
            for wrong in wrongs:
                yield f"{name}: {path}={wrong!r}", override(good, {path: wrong})
    for kind in ("os:system", "os.path:join", "a:b:c", ":x", "x:", "no.module:C"):
        for section in ("model", "data", "init", "objective", "strategy"):
            yield f"{section}.kind={kind}", {**MLP, section: {"kind": kind}}


# pydantic compares a Literal by equality: True is 1 and 2.0 is 2.
ALLOWED = {"gpt: strategy.stage=True", "gpt: strategy.stage=2.0", "mlp: name='nosuch'"}
TREES = {name: tree for name, tree in trees() if name not in ALLOWED}

GOOD_TEXT = json.dumps(MLP, indent=1)
TEXTS = {
    "nothing": b"",
    "a comment": b"# a recipe\n",
    "null": b"null",
    "a number": b"3",
    "a list": b"- model\n- data\n",
    "a word": b"recipe",
    "two documents": b"a: 1\n---\nb: 2\n",
    "an end alone": b"...",
    "a tab": b"model:\n\tkind: mlp\n",
    "wrong indent": b"model:\n  kind: mlp\n hidden: [3]\n",
    "an open bracket": b"model: {kind: mlp, hidden: [3, 5}\n",
    "an open quote": b"name: 'good\n",
    "a colon twice": b"model: kind: mlp\n",
    "a key twice": b"model: mlp\nmodel: gpt\n",
    "a key twice inside": b"model: {kind: mlp, kind: gpt}\n",
    "a number as key": b"3: mlp\n",
    "a list as key": b"? [a]\n: b\n",
    "a mapping as key": b"? {a: b}\n: b\n",
    "null as key": b"~: b\n",
    "a merge": b"base: &b {kind: mlp}\nmodel:\n  <<: *b\n",
    "an unknown alias": b"model: *nothing\n",
    "an alias of itself": b"model: &x {kind: *x}\n",
    "a list of itself": b"model: &x [*x]\n",
    "a python object": b"model: !!python/object/apply:os.system ['true']\n",
    "a python name": b"model: !!python/name:os.system\n",
    "a tag of one's own": b"model: !mine {kind: mlp}\n",
    "a set": b"model: !!set {a, b}\n",
    "a time": b"model: !!timestamp soon\n",
    "a wrong bool": b"model: !!bool maybe\n",
    "a wrong int": b"model: !!int maybe\n",
    "a wrong map": b"model: !!map [a]\n",
    "a list tagged float": b"model: !!float [a]\n",
    "an unknown directive": b"%NOPE 1\n--- a\n",
    "a reserved mark": b"model: @mlp\n",
    "a back quote": b"model: `mlp`\n",
    "a long number": b"trainer: {seed: " + b"9" * 41 + b"}\n",
    "an endless number": b"trainer: {seed: " + b"9" * 5000 + b"}\n",
    "a bell": b"model: m\x07lp\n",
    "a zero byte": b"model: mlp\x00\n",
    "a lone surrogate": b'track: {notes: "\\ud800"}\n',
    "latin 1": "name: \u00fcber\n".encode("latin-1"),
    "utf 16": GOOD_TEXT.encode("utf-16"),
    "utf 32": GOOD_TEXT.encode("utf-32"),
    "every byte": bytes(range(256)),
    "an ELF head": b"\x7fELF\x02\x01\x01" + bytes(64),
    "a zip head": b"PK\x03\x04" + bytes(range(255, 0, -1)),
    "a picture's head": b"\x89PNG\r\n\x1a\n" + bytes(32),
    "zeros": bytes(1009),
    "deep lists": b"model: " + b"[" * 101 + b"]" * 101,
    "very deep lists": b"[" * 100_003,
    "deep mappings": b"{a: " * 10_007,
    "deep indents": b"".join(b" " * level + b"a:\n" for level in range(301)),
    "many lists": b"- " * 5003,
    "a billion laughs": b"a0: &a0 [x]\n" + b"".join(
        b"a%d: &a%d [%s]\n" % (level, level, b",".join([b"*a%d" % (level - 1)] * 9)) for level in range(1, 10)),
    "a doubling": b"a0: &a0 [x]\n" + b"".join(
        b"a%d: &a%d [*a%d, *a%d]\n" % (level, level, level - 1, level - 1) for level in range(1, 25)),
    "too many values": b"model: [" + b"1," * 20_011 + b"]",
    "too large": b"#" * 262_145,
    "a long line": b"model: " + b"x" * 200_003,
    "a long key": b"x" * 200_003 + b": 1",
    "json cut short": GOOD_TEXT[: len(GOOD_TEXT) // 2].encode(),
    "python": b"import headway as hw\nhw.fit('mlp-digits')\n",
    "toml": b"[model]\nkind = 'mlp'\n",
    "html": b"<html><body>404</body></html>",
    "escapes in a name": b'"\\e[31m\\n\\r": 1\n',
    "separators of lines in a name": b'"a\\u2028b\\x85c": 1\n',
}  # fmt: skip


@pytest.fixture
def answer(tmp_path, capsys):
    def ask(content: bytes, *arguments: str) -> str:
        path, runs = tmp_path / "wrong.yaml", tmp_path / "runs"
        path.write_bytes(content)
        code = run(["fit", str(path), "--runs", str(runs), *arguments])
        shown = capsys.readouterr()
        assert code == 2, shown.err
        assert shown.out == ""
        assert len(shown.err.splitlines()) == 1, shown.err
        assert shown.err.endswith("\n")
        assert shown.err.startswith("headway: ")
        assert "Traceback" not in shown.err
        assert not runs.exists()
        return shown.err

    return ask


def test_there_are_more_than_two_hundred():
    assert len(TREES) + len(TEXTS) > 200
    assert len({json.dumps(tree) for tree in TREES.values()}) > 0.9 * len(TREES)


@pytest.mark.parametrize("good", [*GOOD, *SECTIONS])
def test_the_recipe_that_they_are_made_from_is_right(good, tmp_path):
    from headway.config.contracts import Place
    from headway.fit import prepare
    from headway.recipe import load_recipe

    path = tmp_path / "good.yaml"
    path.write_text(json.dumps((GOOD | SECTIONS)[good]))
    prepare(load_recipe(path), Place())


@pytest.mark.parametrize("name", TREES)
def test_a_wrong_value_is_one_line(name, answer):
    line = answer(json.dumps(TREES[name]).replace("Infinity", ".inf").replace("NaN", ".nan").encode())
    assert len(line) < 1000


@pytest.mark.parametrize("name", TEXTS)
def test_what_is_no_recipe_is_one_line(name, answer):
    assert "wrong.yaml" in answer(TEXTS[name])


@pytest.mark.parametrize("cut", range(1, len(GOOD_TEXT) - 1, 61))
def test_a_recipe_that_is_cut_short_is_one_line(cut, answer):
    answer(GOOD_TEXT[:cut].encode())


@pytest.mark.parametrize(
    "change",
    [
        *("optim.lr", "=3", ".=3", "optim.=3", "optim..lr=3", "optim.lr=[", "optim.lr=\udcff", "optim.lr.x=3"),
        "optim.lr=",
        *("modle.hidden=[3]", "model=", "model.hidden=&x [*x]", "optim.lr=!!python/name:os.system", "optim.lr=0.1=0.2"),
    ],
)  # fmt: skip
def test_a_wrong_change_is_one_line(change, answer):
    answer(GOOD_TEXT.encode(), change)


@pytest.mark.parametrize(
    "arguments",
    [["--nme", "x"], ["--name"], ["--resume", "no-such-run"], ["--name", "a/b"], ["--name", ".."], ["--json=maybe"]],
)
def test_a_wrong_option_is_one_line(arguments, answer):
    answer(GOOD_TEXT.encode(), *arguments)


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path, capsys):
    (tmp_path / "good.yaml").write_text(GOOD_TEXT)
    (tmp_path / "file").write_text("")
    assert run(["fit", str(tmp_path / "good.yaml"), "--runs", str(tmp_path / "file")]) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


# ---- as a user meets it ----------------------------------------------------------------------------

WITHOUT_TORCH = """
import sys
from headway.cli import run
code = run(sys.argv[1:])
print([name for name in ("torch", "lightning", "ray", "wandb", "deepspeed") if name in sys.modules])
sys.exit(code)
"""


def fit_in_a_process(tmp_path: Path, content: bytes, *arguments: str, program: str | None = None):
    path, runs = tmp_path / "wrong.yaml", tmp_path / "runs"
    path.write_bytes(content)
    start = ["-m", "headway"] if program is None else ["-c", program]
    done = subprocess.run(
        [sys.executable, *start, "fit", str(path), "--runs", str(runs), *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert not runs.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["wrong.yaml"]
    return done


@pytest.mark.parametrize(
    ("tree", "line"),
    [
        ({**MLP, "model": {"kind": "mpl"}}, "headway: wrong.yaml: model.kind: 'mpl' is not known; did you mean mlp?"),
        ({**MLP, "modle": 1}, "headway: wrong.yaml: modle is not a section of a recipe; did you mean model?"),
        (
            {**MLP, "optim": {"kind": "adam"}},
            "headway: wrong.yaml: optim.kind: 'adam' is not known; did you mean adamw?",
        ),
        ({**MLP, "strategy": "ddpp"}, "headway: wrong.yaml: strategy.kind: 'ddpp' is not known; did you mean ddp?"),
        ({"model": "mlp"}, "headway: wrong.yaml: data is missing: what to train on"),
    ],
)
def test_names_are_answered_without_torch(tree, line, tmp_path):
    done = fit_in_a_process(tmp_path, json.dumps(tree).encode(), program=WITHOUT_TORCH)
    assert done.stderr == line + "\n"
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("name", ["a key twice", "a python object", "every byte", "a billion laughs"])
def test_yaml_is_answered_without_torch(name, tmp_path):
    assert fit_in_a_process(tmp_path, TEXTS[name], program=WITHOUT_TORCH).stdout == "[]\n"


@pytest.mark.parametrize("change", ["trainer.batch_size=0", "optim.lrr=3", "model.num_heads=5", "data.validation=0.95"])
def test_the_command_itself_answers_with_one_line(change, tmp_path):
    done = fit_in_a_process(tmp_path, GOOD_TEXT.encode(), change)
    assert done.stdout == ""
    assert done.stderr.startswith("headway: ")


def test_a_wrong_recipe_for_several_processes_starts_none(tmp_path):
    done = fit_in_a_process(tmp_path, GOOD_TEXT.encode(), "trainer.devices=2")
    assert "strategy.kind: single is one process, but the trainer asks for 2" in done.stderr
