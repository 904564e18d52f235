"""The metrics of a split, as the training computed them: the same objective, the same batches, one process."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from typing import Any, Literal, cast

import torch

from headway.config.contracts import Data, Place, Split
from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.data._pair_sources import Pair
from headway.data._vocabulary import Vocabulary, vocabulary_from_json
from headway.data._windows import IGNORED
from headway.data.translation import PairData
from headway.evaluate.loading import choose_device, fill, load_run, read_weights
from headway.evaluate.selection import Selection
from headway.evaluate.translation import bleu, translate
from headway.recipe import Recipe, load_recipe
from headway.regularize import adversarial
from headway.training import build_objective, lightning_trainer, objective_config, quiet_lightning

SplitName = Literal["train", "validation", "test"]
_WINDOWS = 1 << 14
"""Windows of text that are read at once."""
_PREFIX = {"train": "train", "validation": "val", "test": "test"}


@dataclass(frozen=True)
class Evaluation:
    """How a run's net does on a split."""

    run_id: str
    step: int
    split: str
    samples: int
    metrics: dict[str, float]
    """Named as in the run folder: `test/loss`, `val/accuracy`."""

    def as_dict(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        return asdict(self)


def evaluate(
    selection: Selection, *, split: SplitName = "test", epsilon: float | None = None, with_bleu: bool = False
) -> Evaluation:
    """Returns the metrics of a split; on one process those of the test part are the run's own, to the bit.

    Args:
        selection: which run and checkpoint.
        split: which part of the recipe's data.
        epsilon: size of a change by the fast gradient sign method, in the units of the net's input;
            adds `robust_accuracy` beside the accuracy.
        with_bleu: whether to translate the whole split, with a beam of 4; adds `bleu`.

    Raises:
        UserError: data that is not there or cannot be attacked, or weights that do not fit.
    """
    recipe = load_recipe(selection.run.recipe, trust=selection.trust)
    data = recipe.data.load()
    _compare(selection, data)
    if with_bleu:
        _check_bleu(data)
    if epsilon is not None:
        recipe = _attacked(recipe, data, epsilon)
    judged: Split = getattr(data, split)
    metrics = _measure(_on_one_process(recipe, selection), replace(data, validation=judged), selection)
    if objective_config(recipe, data).kind == "causal_lm" and "vocabulary" in data.reading:
        vocabulary = vocabulary_from_json(data.reading["vocabulary"])
        tokens, characters = _count_scored(judged, vocabulary)
        metrics["val/bits_per_character"] = metrics["val/loss"] * tokens / characters / math.log(2.0)
    if with_bleu and isinstance(data, PairData):
        metrics["val/bleu"] = _bleu(selection, data.pairs[split])
    prefix = _PREFIX[split]
    named = {f"{prefix}/{name.removeprefix('val/')}": value for name, value in metrics.items()}
    return Evaluation(selection.run.id, selection.step, split, len(judged), named)


def _compare(selection: Selection, data: Data) -> None:
    """Writes data.json where the run has none, and says so where the data is not what it was trained on."""
    run = selection.run
    if not (run.path / "data.json").exists():
        run.write_json("data.json", {"spec": asdict(data.spec), "reading": data.reading})
    trained_on = run.read_json("manifest.json").get("data_sha256")
    if trained_on is not None and trained_on != data.fingerprint:
        print(f"headway: the data has changed since {run.id} was trained on it", file=sys.stderr)  # noqa: T201


def _attacked(recipe: Recipe, data: Data, epsilon: float) -> Recipe:
    """Returns the recipe with the attack among its techniques, which changes no other metric."""
    if data.spec.input_kind in ("tokens", "pairs") or data.spec.num_classes is None:
        given = f"{data.spec.input_kind} with {'a class' if data.spec.num_classes else 'no class'}"
        raise UserError(f"--attack: changes real values until a class is taken for another; this data gives {given}")
    objective = objective_config(recipe, data)
    if "accuracy" not in getattr(objective, "metric_names", ()):
        raise UserError(
            f"--attack: counts classes that are taken for others, and objective {objective.kind} counts none"
        )
    attack = validate_section(adversarial.Config, {"epsilon": epsilon, "share": 1.0}, path="--attack")
    return recipe.model_copy(update={"regularize": {**recipe.regularize, "adversarial": attack}})


def _on_one_process(recipe: Recipe, selection: Selection) -> Recipe:
    """Returns the recipe for one process of this machine, without an init: weights come from the checkpoint."""
    single = load_recipe({**recipe.tree(), "strategy": "single"}, trust=selection.trust).strategy
    precision = recipe.trainer.precision
    if precision == "fp16-mixed" and choose_device(selection) == "cpu":
        precision = "fp32"
    trainer = recipe.trainer.model_copy(update={"precision": precision})
    return recipe.model_copy(update={"strategy": single, "trainer": trainer, "init": None})


def _measure(recipe: Recipe, data: Data, selection: Selection) -> dict[str, float]:
    """Returns the metrics of the validation part, as `val/*`."""
    place = Place(device="cuda" if choose_device(selection) == "cuda" else "cpu")
    if recipe.trainer.threads is not None:
        torch.set_num_threads(recipe.trainer.threads)
    objective, _ = build_objective(recipe, data, place)
    fill(objective.net, read_weights(selection.checkpoint), selection)
    with quiet_lightning():
        lightning_trainer(recipe, place, []).validate(cast(Any, objective), verbose=False)
    return dict(objective.validation_metrics)


def _check_bleu(data: Data) -> None:
    if not isinstance(data, PairData):
        raise UserError(f"--bleu: judges translations, and this data gives {data.spec.input_kind}; leave it out")
    if find_spec("sacrebleu") is None:
        raise UserError("--bleu: needs sacrebleu; pip install 'headway[translation]'")


def _bleu(selection: Selection, pairs: list[Pair]) -> float:
    sources, references = zip(*pairs, strict=True)
    found = translate(load_run(selection), sources)
    return bleu([one.translation for one in found], references)


def _count_scored(split: Split, vocabulary: Vocabulary) -> tuple[int, int]:
    """Returns the number of tokens that count in a split and of the characters they stand for."""
    tokens = characters = 0
    for index_N in torch.split(torch.arange(len(split)), _WINDOWS):
        target_M = split.gather(index_N, epoch=0)["target"].flatten()
        scored = target_M[target_M != IGNORED].tolist()
        tokens += len(scored)
        characters += len(vocabulary.decode(scored))
    return tokens, characters
