"""Whether a recipe can be a row of a stack, and which rows can share one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headway.config.contracts import Data, ModuleConfig

if TYPE_CHECKING:
    from headway.recipe import Recipe

Key = tuple[object, ...]

_MODELS = {
    "logistic", "mlp", "convnet", "alexnet", "resnet", "autoencoder", "ngram", "rnn", "lstm", "gru", "gpt", "bert",
    "transformer",
}  # fmt: skip
_OBJECTIVES = {"classify", "regress", "reconstruct", "causal_lm", "masked_lm", "seq2seq"}
_TECHNIQUES = {"penalty"}
_PRECISIONS = {"fp32", "fp64"}


def why_not(recipe: Recipe, data: Data) -> str | None:
    """Returns why a recipe's steps cannot be made together with those of others; None where they can."""
    trainer = recipe.trainer
    if isinstance(recipe.objective, ModuleConfig) or recipe.model is None:
        return "a LightningModule of your own makes its own steps"
    if recipe.model.kind not in _MODELS:
        return f"model.kind {recipe.model.kind} is a net of your own, which may have operations that no stack batches"
    objective = recipe.objective.kind if recipe.objective else recipe.model.default_objective(data.spec)
    if objective not in _OBJECTIVES:
        return f"objective.kind {objective} is not one of {', '.join(sorted(_OBJECTIVES))}"
    if data.spec.carried:
        return "data.carry goes on from the state of the batch before"
    if not data.train.in_memory:
        return f"data.kind {recipe.data.kind} is read by processes of its own"
    if recipe.optim is None or recipe.optim.needs_closure:
        return "the optimizer asks for the loss several times a step"
    for technique in recipe.regularize:
        if technique not in _TECHNIQUES:
            return f"regularize.{technique} acts on one net at a time"
    if recipe.strategy.kind != "single":
        return f"strategy.kind {recipe.strategy.kind} trains one net on several processes"
    if trainer.precision not in _PRECISIONS:
        return f"trainer.precision {trainer.precision} is a cast for each operation"
    if trainer.compile:
        return "trainer.compile compiles one net"
    if isinstance(recipe.track.health_every, int):
        return f"track.health_every {recipe.track.health_every} measures one net at a time"
    if trainer.rng != "keyed":
        return f"trainer.rng {trainer.rng} draws from one generator"
    if trainer.micro_batch is not None and trainer.micro_batch < trainer.batch_size:
        return "trainer.micro_batch cuts a batch into parts"
    return None


def stack_key(recipe: Recipe, data: Data) -> Key:
    """Returns what rows of one stack have in common: shapes, the loss, the kind of update."""
    assert recipe.model is not None
    assert recipe.optim is not None
    model = {name: value for name, value in recipe.model.model_dump().items() if "dropout" not in name}
    objective = recipe.objective
    trainer = recipe.trainer
    return (
        repr(sorted(model.items())),
        repr(data.spec),
        objective.model_dump_json(exclude=set(objective.row_settings)) if objective else None,
        recipe.optim.kind,
        getattr(recipe.optim, "nesterov", None),
        trainer.precision,
        trainer.batch_size,
        trainer.clip_norm is None,
        trainer.clip_value is None,
    )
