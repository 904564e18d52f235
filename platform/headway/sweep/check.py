"""Finds what is wrong with a sweep before anything starts, and says what its trials have in common.

Every value that a distribution can reach at its ends goes through the recipe's own validation, so a
typo in a path has the message it would have on the command line, with the space's entry in front.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway.config.contracts import Data, Device, Place
from headway.config.errors import UserError, suggestion
from headway.config.overrides import override, parse_assignments
from headway.config.reading import Tree
from headway.config.space import POPULATIONS, SweepSection
from headway.recipe import Recipe, load_recipe, read_recipe
from headway.sweep.fusing import why_not_fused

_NOT_SEARCHABLE = ("name", "sweep", "track")


@dataclass(frozen=True)
class Plan:
    """A sweep that has been found sound."""

    name: str
    """The recipe's name."""
    tree: Tree
    """The recipe as its author wrote it, with the user's changes: defaults are each trial's own."""
    resolved: str
    """The recipe as YAML, every default written out."""
    search: SweepSection
    seed: int
    trust: tuple[str, ...]
    device: Device
    accelerator: str
    """What the recipe asks for: auto, cpu or cuda."""
    total_steps: int
    """Optimizer steps of the longest trial."""
    grace_steps: int
    """Steps that every trial gets before a scheduler may stop it."""
    fixed: dict[str, Any]
    """Changes that every trial shares; a sample goes before them."""
    proxy: dict[str, Any]
    """Changes that make each trial a narrow copy of what is searched for."""
    command: tuple[str, ...]
    """How the user's own command line would train this recipe; empty where the recipe is no file."""
    not_fusable: str | None
    """Why trials cannot be trained together; None where they can."""
    probe: tuple[Recipe, Data] | None
    """A trial to time steps with, where they can."""
    ranks: int
    """Processes of a trial."""
    interval_steps: int
    """Steps between two exchanges of a population."""
    mutated: tuple[str, ...]
    """Paths that a population changes on the way."""

    @property
    def num_trials(self) -> int:
        """Returns how many trials there will be."""
        return self.search.num_trials


def check_sweep(
    recipe: str | Path | Recipe | Tree,
    overrides: Iterable[str] | Mapping[str, Any] = (),
    *,
    trust: Collection[str] = (),
) -> Plan:
    """Returns the plan of a sweep. Starts nothing and writes nothing.

    Raises:
        UserError: one line that names the setting, its value and the remedy.
    """
    changes = dict(overrides) if isinstance(overrides, Mapping) else parse_assignments(overrides)
    loaded = load_recipe(recipe, changes, trust=trust)
    if loaded.sweep is None:
        raise UserError(
            f"{loaded.name} has no sweep section; add what to search: "
            "sweep: {trials: 16, space: {optim.lr: {loguniform: [1e-4, 1e-1]}}}"
        )
    search = loaded.sweep
    tree = override(as_written(recipe), changes)
    proxy = dict(search.proxy or {})
    narrow = _narrow(tree, search, trust=trust) if proxy else loaded
    variants = [narrow, *check_space(override(tree, proxy), search, trust=trust)]
    device, data = _prepare(loaded)
    check_metric(search.metric, metric_names(loaded, data))
    if proxy:
        from headway.sweep.proxy import check_proxy

        check_proxy(narrow, loaded, data)
    _refuse_missing_packages(search)
    mutated = _mutated(search)
    ranks = _ranks(variants, device)
    not_fusable = "sweep.fuse is off" if search.fuse == "off" else why_not_fused(variants, data)
    if not_fusable and search.fuse not in ("auto", "off"):
        raise UserError(f"sweep.fuse: {search.fuse}, but {not_fusable}; set sweep.fuse=off")
    total_steps = max(variant.trainer.total_steps(variant.trainer.batches(len(data.train))) for variant in variants)
    return Plan(
        name=loaded.name,
        tree=tree,
        resolved=loaded.yaml(),
        search=search,
        seed=loaded.trainer.seed if search.seed is None else search.seed,
        trust=tuple(trust),
        device=device,
        accelerator=loaded.trainer.accelerator,
        total_steps=total_steps,
        grace_steps=_steps("grace_steps", loaded, data, total_steps),
        interval_steps=_steps("interval_steps", loaded, data, total_steps),
        mutated=mutated,
        ranks=ranks,
        # One core a trial: more threads than cores slow each other down.
        fixed={"trainer.threads": 1},
        proxy=proxy,
        command=_command(recipe, changes, trust),
        not_fusable=not_fusable,
        probe=None if not_fusable else (variants[-1], data),
    )


def _narrow(tree: Tree, search: SweepSection, *, trust: Collection[str]) -> Recipe:
    """Returns the recipe with its proxy's changes.

    Raises:
        UserError: the proxy changes something else than the size of the net.
    """
    from headway.sweep.proxy import refuse_unless_model

    assert search.proxy is not None
    refuse_unless_model(search.proxy, search.space)
    try:
        return load_recipe(override(tree, search.proxy), trust=trust)
    except UserError as error:
        raise UserError(f"sweep.proxy: {error}") from None


def as_written(recipe: str | Path | Recipe | Tree) -> Tree:
    """Returns a recipe without its defaults.

    With them, a sampled init.kind would meet those of the kind it replaces, and a sampled
    trainer.seed the seeds that were derived from another.
    """
    if isinstance(recipe, Recipe):
        return recipe.model_dump(mode="json", exclude_unset=True, exclude_none=True)
    return read_recipe(recipe)[0]


def check_space(tree: Tree, search: SweepSection, *, trust: Collection[str] = ()) -> list[Recipe]:
    """Returns the recipes at the ends of the space: each end of a path with the others at their first value.

    Raises:
        UserError: a path that is not known or may not be searched, or a value that the recipe refuses.
    """
    firsts = {path: drawn.extremes()[0] for path, drawn in search.space.items()}
    for path in firsts:
        if path.partition(".")[0] in _NOT_SEARCHABLE:
            raise UserError(f"sweep.space.{path}: {path.partition('.')[0]} changes no training; leave it out")
    recipes = []
    for path, drawn in search.space.items():
        # Where a path has a condition, those that it names have values that meet it.
        wanted = {
            other: values[0] if isinstance(values, list) else values for other, values in (drawn.when or {}).items()
        }
        for value in drawn.extremes():
            sample = search.active({**firsts, **wanted, path: value})
            if path not in sample:
                raise UserError(
                    f"sweep.space.{path}: no sample meets its when ({drawn.when}); name values of the space"
                )
            try:
                recipes.append(load_recipe(override(tree, sample), trust=trust))
            except UserError as error:
                raise UserError(_blame(str(error), path, value, sample)) from None
    return recipes


def _blame(problem: str, path: str, value: Any, firsts: Mapping[str, Any]) -> str:
    """Returns the line with the path in front that it is about, which may be another than the one at its end."""
    named = max((other for other in firsts if other in problem), key=len, default=path)
    where = "" if named == path else f" (with {path}={value})"
    return f"sweep.space.{named}: {problem}{where}"


def _ranks(variants: list[Recipe], device: Device) -> int:
    """Returns how many processes each trial has.

    Raises:
        UserError: some have more than others.
    """
    from headway.supervise.place import devices_per_node

    found = set()
    for variant in variants:
        per_node = devices_per_node(variant.trainer, device, single=variant.strategy.kind == "single")
        found.add(per_node * variant.trainer.nodes)
    if len(found) > 1:
        raise UserError(
            f"sweep.space: trials would have {' or '.join(map(str, sorted(found)))} processes; "
            "leave trainer.devices, trainer.nodes and strategy out of the space"
        )
    return found.pop()


_PACKAGES = {"bohb": ("hpbandster", "ConfigSpace"), "pb2": ("GPy",)}


def _refuse_missing_packages(search: SweepSection) -> None:
    for setting, kind in (("searcher", search.searcher), ("scheduler", search.scheduler.kind)):
        for package in _PACKAGES.get(kind, ()):
            if importlib.util.find_spec(package) is None:
                raise UserError(f"sweep.{setting}: {kind} needs {package}; pip install 'headway[{kind}]'")


_MAY_CHANGE_ON_THE_WAY = ("optim.lr", "optim.weight_decay", "optim.momentum", "trainer.clip_norm", "trainer.clip_value")


def _may_change(path: str) -> bool:
    """Returns whether a trial can go on from its weights with another value of a setting."""
    return (
        path in _MAY_CHANGE_ON_THE_WAY
        or path == "objective.label_smoothing"
        or (path.startswith("model.") and "dropout" in path)
        or (path.startswith("regularize.") and not path.startswith("regularize.prune"))
    )


def _mutated(search: SweepSection) -> tuple[str, ...]:
    """Returns the paths that a population changes on the way.

    Raises:
        UserError: there are none, or one that would make other weights of a trial.
    """
    kind = search.scheduler.kind
    if kind not in POPULATIONS:
        return ()
    may = [path for path in search.space if _may_change(path) and search.space[path].way != "value"]
    if kind == "pb2":
        # Its model is of numbers.
        may = [path for path in may if search.space[path].values is None]
    asked = search.scheduler.mutate
    for path in asked or ():
        if path not in may:
            known = "is not in the space" if path not in search.space else "cannot change while a trial trains"
            raise UserError(f"sweep.scheduler.mutate: {path} {known}; choose among {', '.join(may) or 'none'}")
    if not may:
        raise UserError(
            f"sweep.scheduler: {kind} has nothing to change on the way; "
            "add optim.lr, optim.weight_decay or a dropout to the space"
        )
    return tuple(asked or may)


def _prepare(recipe: Recipe) -> tuple[Device, Data]:
    from headway.prepare import prepare
    from headway.supervise.place import choose_device

    device = choose_device(recipe.trainer)
    return device, prepare(recipe, Place(device=device))


def metric_names(recipe: Recipe, data: Data) -> list[str]:
    """Returns what a trial reports."""
    from headway.training import validation_metrics

    return ["train/loss", *validation_metrics(recipe, data)]


def check_metric(metric: str, known: Collection[str]) -> None:
    """Raises a UserError for a metric that no validation reports."""
    if metric not in known:
        hint = suggestion(metric, known)
        listed = "" if "there is" in hint else f" A validation reports {', '.join(known)}"
        raise UserError(f"sweep.metric: {metric!r} is not reported by a validation{hint}{listed}")


def _steps(name: str, recipe: Recipe, data: Data, total_steps: int) -> int:
    """Returns a scheduler's number of steps: as asked, or those between validations."""
    assert recipe.sweep is not None
    asked: int | None = getattr(recipe.sweep.scheduler, name)
    if asked is not None and asked > total_steps:
        raise UserError(
            f"sweep.scheduler.{name}: {asked}, but a trial has {total_steps} steps; lower it, or train longer"
        )
    return min(asked or recipe.trainer.validate_every or recipe.trainer.batches(len(data.train)), total_steps)


def _command(recipe: str | Path | Recipe | Tree, changes: Mapping[str, Any], trust: Collection[str]) -> tuple[str, ...]:
    from headway.sweep.result import assignment

    if not isinstance(recipe, str | Path):
        return ()
    # What only a sweep reads has no place in the command of one run.
    mine = [assignment(path, value) for path, value in changes.items() if path.partition(".")[0] != "sweep"]
    trusted = [part for module in trust for part in ("--trust", module)]
    return ("headway", "fit", str(recipe), *mine, *trusted)
