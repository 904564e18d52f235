"""A recipe: a whole experiment as one frozen, validated value.

YAML -> read -> override -> check the names -> validate -> `Recipe`. Names of sections and kinds
are checked without importing torch, which answers a typo within a second; values are checked by the
Config classes, most of which live beside their torch modules.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field, PositiveInt, SerializeAsAny, model_validator

from headway.config.contracts import (
    DATA,
    FAMILIES,
    INIT,
    MODEL,
    OBJECTIVE,
    REGULARIZE,
    STRATEGY,
    DataConfig,
    InitConfig,
    ModelConfig,
    ObjectiveConfig,
    RegularizeConfig,
    StrategyConfig,
)
from headway.config.errors import UserError, suggestion
from headway.config.kinds import Family, check_kind, resolve_kind
from headway.config.overrides import flatten, override, parse_assignments
from headway.config.reading import Tree, dump, read_file
from headway.config.section import Section, validate_section
from headway.config.shipped import find_recipe
from headway.config.space import SweepSection
from headway.optim import OPTIMIZERS, OptimConfig

Precision = Literal["fp64", "fp32", "bf16-mixed", "bf16", "fp16-mixed"]


class EarlyStopping(Section):
    """When to give up before the last step."""

    patience: PositiveInt
    """Validations in a row without a better `monitor` before training stops."""
    min_delta: float = Field(default=0.0, ge=0)
    """How much better counts as better."""


class TrainerSection(Section):
    """A recipe's `trainer` section."""

    seed: Annotated[int, Field(ge=0, lt=2**63)] = 0
    """Seed of everything that is drawn while training; init.seed and data.seed default to it."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """What to train on; auto takes GPUs where there are any."""
    devices: PositiveInt | Literal["auto"] = "auto"
    """Processes on each node; auto is one on a CPU, one a GPU otherwise."""
    nodes: PositiveInt = 1
    """Machines, each of which runs the same command."""
    max_steps: PositiveInt | None = None
    """Optimizer steps; with max_epochs, whichever ends first."""
    max_epochs: PositiveInt | None = None
    """Passes over the training part."""
    batch_size: PositiveInt
    """Samples a step over all ranks together."""
    micro_batch: PositiveInt | None = None
    """Samples of a rank that go through the net at once; its whole share when absent."""
    eval_batch_size: PositiveInt | None = None
    """Samples a validation batch over all ranks together; batch_size when absent."""
    precision: Precision = "fp32"
    """Number format: of everything (fp64, fp32, bf16), or of the matrix products (the -mixed ones)."""
    clip_norm: float | None = Field(default=None, gt=0)
    """Largest norm of the whole gradient; a longer one is scaled down to it."""
    clip_value: float | None = Field(default=None, gt=0)
    """Largest value of a gradient; each is cut to it, before `clip_norm`."""
    validate_every: PositiveInt | None = None
    """Steps between validations; once an epoch when absent."""
    checkpoint_every: PositiveInt | None = None
    """Steps between checkpoints besides those at validations."""
    monitor: str = "val/loss"
    """Metric that says which checkpoint is best."""
    monitor_mode: Literal["min", "max"] = "min"
    """Whether less or more of `monitor` is better."""
    early_stopping: EarlyStopping | None = None
    """When to give up; never when absent."""
    rng: Literal["keyed", "fast"] = "keyed"
    """keyed: masks are the same on any number of ranks; fast: the library's own generator."""
    compile: bool = False
    """Whether torch.compile compiles the net."""
    steps_per_call: PositiveInt | Literal["auto"] = "auto"
    """Optimizer steps that share one call of the training loop; auto aims at a tenth of a second."""
    threads: PositiveInt | None = None
    """CPU threads of a process; the cores shared among a node's ranks when absent."""
    timeout_s: PositiveInt = 120
    """Seconds after which a rank that waits for another gives up."""
    save_timeout_s: PositiveInt = 60
    """Seconds that ranks which are told to stop have to save where they are."""

    @model_validator(mode="after")
    def _ends(self) -> TrainerSection:
        if self.max_steps is None and self.max_epochs is None:
            raise ValueError("has no end; set trainer.max_steps or trainer.max_epochs")
        return self

    def batches(self, num_samples: int) -> int:
        """Returns the batches of a pass over `num_samples`, a last short one among them."""
        return -(-num_samples // self.batch_size)

    def total_steps(self, batches_per_epoch: int) -> int:
        """Returns the optimizer steps of a whole run."""
        epochs = None if self.max_epochs is None else self.max_epochs * batches_per_epoch
        return min(end for end in (self.max_steps, epochs) if end is not None)


Alert = Literal["nan", "diverged", "stalled", "finished"]


class TrackSection(Section):
    """A recipe's `track` section: where metrics go besides the run folder."""

    wandb: Literal["auto", "online", "offline", "disabled"] = "auto"
    """Weights & Biases; auto is online with a key and a network, offline otherwise."""
    project: str | None = Field(default=None, min_length=1, max_length=128)
    """W&B project; what WANDB_PROJECT says when absent, else headway."""
    entity: str | None = None
    """W&B user or team; what WANDB_ENTITY says when absent, else the key's own."""
    group: str | None = None
    """W&B group of runs that belong together."""
    job_type: str = "fit"
    """W&B job type; a sweep's trials are `trial`."""
    tags: list[str] = Field(default_factory=list)
    """W&B tags."""
    notes: str | None = None
    """A line on why this run exists."""
    every: PositiveInt = 1
    """Steps between rows of metrics.jsonl."""
    wandb_every: PositiveInt = 10
    """Steps between training rows sent to W&B; validations always are."""
    health_every: PositiveInt | Literal["auto", "never"] = "auto"
    """Steps between measures of each layer's gradient, update and activations; auto is 100, never for fused trials."""
    code: bool = True
    """Whether W&B gets the code and the recipe as an artifact."""
    checkpoints: bool = False
    """Whether W&B gets the best and the newest checkpoint, as artifacts with the aliases best and latest."""
    media: bool = True
    """Whether images, tables and texts of the net are made at a run's end."""
    alerts: list[Alert] = Field(default_factory=lambda: list(get_args(Alert)))
    """What is told of in alerts.jsonl and by W&B: no number for a loss, a runaway loss, no steps, the end."""
    stall_s: PositiveInt = 900
    """Seconds without a row after which a run has stalled."""


class Recipe(Section):
    """A whole experiment. `load_recipe` makes one; nothing changes it afterwards."""

    name: str = Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """What runs of it are called: letters, digits, dots, dashes and underscores."""
    model: SerializeAsAny[ModelConfig] | None = None
    """The net; absent only where the objective is a LightningModule of your own."""
    data: SerializeAsAny[DataConfig]
    """What to train on."""
    init: SerializeAsAny[InitConfig] | None = None
    """How weights start; as each layer's own constructor leaves them when absent."""
    optim: SerializeAsAny[OptimConfig] | None = None
    """How weights move; absent only where the objective is a LightningModule of your own."""
    objective: SerializeAsAny[ObjectiveConfig] | None = None
    """What is minimized; the model's own when absent."""
    regularize: dict[str, SerializeAsAny[RegularizeConfig]] = Field(default_factory=dict)
    """Techniques against overfitting and others that act on batch, loss, gradient or weights, by name."""
    trainer: TrainerSection
    """How long, how much at once, and in what precision."""
    strategy: SerializeAsAny[StrategyConfig]
    """How ranks share the work."""
    track: TrackSection
    """Where metrics go besides the run folder."""
    sweep: SweepSection | None = None
    """What `headway sweep` searches."""

    def tree(self) -> Tree:
        """Returns the recipe as plain values, every default written out."""
        return self.model_dump(mode="json", exclude_none=True)

    def yaml(self) -> str:
        """Returns the recipe as YAML that `load_recipe` reads back to an equal one."""
        return dump(self.tree())

    def dotted(self) -> dict[str, Any]:
        """Returns `{"optim.lr": 0.001, ...}`."""
        return dict(flatten(self.tree()))


SECTIONS = list(Recipe.model_fields)
_PLAIN: dict[str, type[Section]] = {"trainer": TrainerSection, "track": TrackSection, "sweep": SweepSection}
_OPTIONAL = {"name", "init", "objective", "regularize", "strategy", "track", "sweep"}
_OPTIONAL_TO_OWN_MODULE = {"model", "optim"}


def load_recipe(
    recipe: str | Path | Recipe | Tree,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    trust: Collection[str] = (),
) -> Recipe:
    """Returns a validated recipe.

    Args:
        recipe: a path, the name of one that comes along, a tree of plain values, or a recipe.
        overrides: changes, as `["optim.lr=0.1"]` or `{"optim.lr": 0.1}`.
        trust: modules outside headway that the recipe may name as `kind: module:Class`.

    Raises:
        UserError: one line that names the setting, its value and the remedy.
    """
    tree, source = read_recipe(recipe)
    changes = overrides if isinstance(overrides, Mapping) else parse_assignments(overrides)
    try:
        tree = check_names(override(tree, changes), trust=trust)
        return _validate(tree)
    except UserError as error:
        raise UserError(f"{source}: {error}" if source else str(error)) from None


def check_recipe_names(recipe: str | Path, overrides: Iterable[str] = (), *, trust: Collection[str] = ()) -> None:
    """Raises a UserError for what can be found wrong without importing torch: YAML, sections, kinds.

    For a command line, which answers a typo at once; `load_recipe` checks the same and all the rest.
    """
    tree, source = read_recipe(recipe)
    try:
        check_names(override(tree, parse_assignments(overrides)), trust=trust)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None


def read_recipe(recipe: str | Path | Recipe | Tree) -> tuple[Tree, str]:
    if isinstance(recipe, Recipe):
        return recipe.tree(), ""
    if isinstance(recipe, dict):
        return {"name": "recipe", **recipe}, ""
    path = find_recipe(str(recipe))
    return {"name": _name_after(path), **read_file(path)}, path.name


def _name_after(path: Path) -> str:
    """Returns a recipe's name where it has none of its own: its file's, or its folder's if it is called recipe.yaml."""
    stem = path.stem if path.stem != "recipe" else path.resolve().parent.name
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", stem).lstrip("._-")
    return plain[:100] or "recipe"


def check_names(tree: Tree, *, trust: Collection[str] = ()) -> Tree:
    """Returns the tree with every section a mapping, its kinds known. Imports no torch.

    Raises:
        UserError: an unknown or missing section, or an unknown kind.
    """
    for section in tree:
        if section not in SECTIONS:
            raise UserError(f"{section} is not a section of a recipe{suggestion(section, SECTIONS)}")
    checked = {section: value for section, value in tree.items() if value is not None}
    own_module = ":" in str(_kind_of(checked.get("objective")))
    for section in SECTIONS:
        if section in checked or section in _OPTIONAL or (section in _OPTIONAL_TO_OWN_MODULE and own_module):
            continue
        purpose = str(Recipe.model_fields[section].description)
        raise UserError(f"{section} is missing: {purpose[0].lower()}{purpose[1:].rstrip('.')}")
    for family in FAMILIES:
        if family.section in checked:
            checked[family.section] = check_kind(family, checked[family.section], trust)
    if "regularize" in checked:
        checked["regularize"] = _check_techniques(checked["regularize"], trust)
    if "optim" not in checked:
        return checked
    optim = {"kind": checked["optim"]} if isinstance(checked["optim"], str) else checked["optim"]
    kind = _kind_of(optim)
    if not isinstance(kind, str) or kind not in OPTIMIZERS:
        problem = "is missing" if kind is None else f"{kind!r} is not known"
        raise UserError(f"optim.kind: {problem}{suggestion(str(kind), OPTIMIZERS)}")
    return {**checked, "optim": optim}


def _check_techniques(tree: Any, trust: Collection[str]) -> Tree:
    """Returns the `regularize` section without the techniques that are set to nothing, every name known."""
    section = REGULARIZE.section
    if not isinstance(tree, dict):
        raise UserError(f"{section}: is {tree!r}; write {section}: {{{REGULARIZE.names()[0]}: {{...}}}}")
    for name in tree:
        if ":" not in name and name not in REGULARIZE.names():
            raise UserError(f"{section}.{name} is not known{suggestion(name, REGULARIZE.names())}")
        check_kind(REGULARIZE, name, trust)
    return {name: settings for name, settings in tree.items() if settings is not None}


def _kind_of(section: Any) -> Any:
    return section.get("kind") if isinstance(section, dict) else section


def _validate(tree: Tree) -> Recipe:
    trainer = validate_section(TrainerSection, tree["trainer"], path="trainer")
    sections: dict[str, Any] = {"name": tree.get("name"), "trainer": trainer}
    sections["track"] = validate_section(TrackSection, tree.get("track", {}), path="track")
    if "optim" in tree:
        sections["optim"] = validate_section(OPTIMIZERS[tree["optim"]["kind"]], tree["optim"], path="optim")
    if "sweep" in tree:
        sections["sweep"] = validate_section(SweepSection, tree["sweep"], path="sweep")
    if "regularize" in tree:
        sections["regularize"] = {
            name: validate_section(resolve_kind(REGULARIZE, name), settings, path=f"regularize.{name}")
            for name, settings in tree["regularize"].items()
        }
    tree = _resolve_defaults(tree, trainer)
    for family in FAMILIES:
        if family.section in tree:
            section = tree[family.section]
            config = _section_of(family, section)
            sections[family.section] = validate_section(config, section, path=family.section)
    return validate_section(Recipe, sections, path="")


def _section_of(family: Family, section: Tree) -> type[Section]:
    return resolve_kind(family, section["kind"])


def _resolve_defaults(tree: Tree, trainer: TrainerSection) -> Tree:
    """Returns the tree with seeds and strategy written out, so that the run folder's copy repeats the run."""
    resolved = dict(tree)
    for section in (DATA.section, INIT.section):
        if section in resolved and resolved[section].get("seed") is None:
            resolved[section] = {**resolved[section], "seed": trainer.seed}
    if STRATEGY.section not in resolved:
        several = trainer.nodes > 1 or (isinstance(trainer.devices, int) and trainer.devices > 1)
        resolved[STRATEGY.section] = {"kind": "ddp" if several else "single"}
    return resolved


def recipe_schema() -> dict[str, Any]:
    """Returns the JSON Schema of a recipe, every kind included, for an editor's completion."""
    schema = Recipe.model_json_schema()
    definitions: dict[str, Any] = schema.setdefault("$defs", {})
    kinds: dict[str, dict[str, type[Section]]] = {
        family.section: {name: resolve_kind(family, name) for name in family.names()} for family in FAMILIES
    }
    kinds["optim"] = dict(OPTIMIZERS)
    for section, configs in kinds.items():
        variants: list[dict[str, Any]] = []
        for kind, config in configs.items():
            variant = _define(definitions, section, kind, config)
            variant["properties"]["kind"] = {"const": kind, "description": (config.__doc__ or kind).splitlines()[0]}
            variants.append({"$ref": f"#/$defs/{section}.{kind}"})
        variants.append({"enum": list(configs), "description": "The kind alone, where its defaults will do."})
        if section != "optim":
            variants.append({"$ref": "#/$defs/own"})
        schema["properties"][section] = {"anyOf": variants, "description": Recipe.model_fields[section].description}
    section = REGULARIZE.section
    techniques: dict[str, Any] = {}
    for name in REGULARIZE.names():
        _define(definitions, section, name, resolve_kind(REGULARIZE, name))
        techniques[name] = {"anyOf": [{"$ref": f"#/$defs/{section}.{name}"}, {"type": "null"}]}
    schema["properties"][section] = {
        "type": "object",
        "properties": techniques,
        "patternProperties": {":": {"type": "object"}},
        "additionalProperties": False,
        "description": Recipe.model_fields[section].description,
    }
    definitions["own"] = {
        "description": "A class of your own, as module:Class.",
        "type": "object",
        "properties": {"kind": {"type": "string", "pattern": r"^[A-Za-z0-9_.]+:[A-Za-z0-9_]+$"}},
        "required": ["kind"],
    }
    _allow_short(definitions)
    schema["required"] = [section for section in SECTIONS if section not in _OPTIONAL]
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema


def _define(definitions: dict[str, Any], section: str, kind: str, config: type[Section]) -> dict[str, Any]:
    """Returns the schema of a kind, having put it and what it refers to among the definitions."""
    schema = config.model_json_schema(ref_template=f"#/$defs/{section}.{kind}.{{model}}")
    for name, definition in schema.pop("$defs", {}).items():
        definitions[f"{section}.{kind}.{name}"] = definition
    definitions[f"{section}.{kind}"] = {**schema, "title": f"{section}: {kind}"}
    return schema


def _allow_short(definitions: dict[str, Any]) -> None:
    """Lets `schedule: cosine` stand for `schedule: {kind: cosine}` wherever a section within one has kinds."""
    for definition in definitions.values():
        for name, value in definition.get("properties", {}).items():
            inner = definitions.get(value.get("$ref", "").removeprefix("#/$defs/"), {})
            kinds = inner.get("properties", {}).get("kind", {}).get("enum")
            if kinds:
                rest = {key: item for key, item in value.items() if key != "$ref"}
                definition["properties"][name] = {"anyOf": [{"$ref": value["$ref"]}, {"enum": kinds}], **rest}


__all__ = ["INIT", "MODEL", "OBJECTIVE", "SECTIONS", "Recipe", "check_names", "load_recipe", "recipe_schema"]
