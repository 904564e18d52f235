"""What a sweep may vary: a dotted path of the recipe to a distribution over its values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from headway.config.section import Section

Range = Annotated[tuple[float, float], Field(strict=False)]
Whole = Annotated[tuple[int, int], Field(strict=False)]
Stepped = Annotated[tuple[float, float, float], Field(strict=False)]
_WAYS = (
    "choice", "uniform", "loguniform", "randint", "quniform", "qloguniform", "lograndint", "value",
)  # fmt: skip
_LOGARITHMIC = ("loguniform", "qloguniform", "lograndint")


class Distribution(Section):
    """Exactly one of the ways to draw a value, and when it is drawn at all."""

    value: Any = None
    """This value, always."""
    choice: list[Any] | None = None
    """One of these values, each as likely; a grid tries them all."""
    uniform: Range | None = None
    """A real number in [low, high)."""
    loguniform: Range | None = None
    """A real number whose logarithm is uniform; low is above 0."""
    quniform: Stepped | None = None
    """A multiple of q in [low, high], given as [low, high, q]."""
    qloguniform: Stepped | None = None
    """A multiple of q in [low, high] whose logarithm is uniform before it is rounded, given as [low, high, q]."""
    randint: Whole | None = None
    """A whole number in [low, high)."""
    lograndint: Whole | None = None
    """A whole number in [low, high) whose logarithm is uniform; low is above 0."""
    when: dict[str, Any] | None = None
    """Other paths of the space and the value, or list of values, that they must have for this one to be drawn."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        """Takes `0.1` for a constant."""
        return value if isinstance(value, dict | Distribution) else {"value": value}

    @model_validator(mode="after")
    def _one_sound_way(self) -> Distribution:
        ways = [name for name in _WAYS if name in self.model_fields_set and getattr(self, name) is not None]
        if len(ways) != 1:
            raise ValueError(f"has {', '.join(ways) or 'nothing'}; give one of {', '.join(_WAYS)}")
        if self.choice is not None and not self.choice:
            raise ValueError("choice is empty; list the values to try")
        bounds = getattr(self, self.way)
        if isinstance(bounds, tuple):
            if not bounds[0] < bounds[1]:
                raise ValueError(f"{self.way} is {list(bounds)}; low should be less than high")
            if not all(math.isfinite(bound) for bound in bounds):
                raise ValueError(f"{self.way} is {list(bounds)}; its bounds should be finite")
            if self.is_logarithmic and bounds[0] <= 0:
                raise ValueError(
                    f"{self.way} is {list(bounds)}; low should be above 0, whose logarithm is not a number"
                )
            if len(bounds) == 3 and not 0 < bounds[2] <= bounds[1] - bounds[0]:
                raise ValueError(f"{self.way} is {list(bounds)}; q, the last, should be above 0 and at most high - low")
        return self

    @property
    def way(self) -> str:
        """Returns the name of the way that is given."""
        return next(name for name in _WAYS if name in self.model_fields_set and getattr(self, name) is not None)

    @property
    def is_logarithmic(self) -> bool:
        """Returns whether the logarithm is what is drawn."""
        return self.way in _LOGARITHMIC

    @property
    def bounds(self) -> tuple[float, float]:
        """Returns the least and the greatest value of a range."""
        low, high, *_ = getattr(self, self.way)
        return (low, high - 1) if self.way in ("randint", "lograndint") else (low, high)

    @property
    def values(self) -> list[Any] | None:
        """Returns every value, where they can be listed without being drawn; None for a range."""
        return [self.value] if self.way == "value" else self.choice

    def extremes(self) -> list[Any]:
        """Returns the values that a recipe must accept for the whole distribution to be sound."""
        if self.values is not None:
            return list(self.values)
        low, high = self.bounds
        if self.way in ("uniform", "loguniform"):
            return [low, math.nextafter(high, low)]
        return [self.clamped(low), self.clamped(high)]

    def at(self, quantile: float) -> Any:
        """Returns the value below which a share `quantile`, in [0, 1], of draws lies."""
        if self.values is not None:
            return self.values[min(int(quantile * len(self.values)), len(self.values) - 1)]
        low, high = self.bounds
        if self.way in ("randint", "lograndint"):
            high = high + 1
        if self.is_logarithmic:
            found = math.exp(math.log(low) + quantile * (math.log(high) - math.log(low)))
        else:
            found = low + quantile * (high - low)
        if self.way in ("randint", "lograndint"):
            return min(max(int(found), int(low)), int(high) - 1)
        if self.way in ("quniform", "qloguniform"):
            return self._rounded(found)
        return min(max(found, low), high)

    def _rounded(self, value: float) -> float:
        """Returns the multiple of q in the range that is nearest to a value, without the dust of binary fractions."""
        low, high, q = getattr(self, self.way)
        first, last = math.ceil(low / q - 1e-9), math.floor(high / q + 1e-9)
        return float(f"{min(max(round(value / q), first), last) * q:.12g}")

    def clamped(self, value: Any) -> Any:
        """Returns the value of the distribution that is nearest to a number."""
        if self.values is not None:
            return value
        low, high = self.bounds
        if self.way in ("quniform", "qloguniform"):
            return self._rounded(value)
        value = min(max(value, low), high)
        return round(value) if self.way in ("randint", "lograndint") else value


SchedulerKind = Literal["fifo", "asha", "hyperband", "median", "pbt", "pb2"]
POPULATIONS = ("pbt", "pb2")
PAUSING = ("hyperband", *POPULATIONS)
"""Schedulers that have trials wait."""


class Scheduler(Section):
    """Which trials go on."""

    kind: SchedulerKind = "fifo"
    """fifo lets every trial finish; asha stops those that trail at a rung (Li et al. 2020); hyperband halves brackets
    of several sizes (Li et al. 2018); median stops those whose best is worse than the median of the others' means so
    far (Golovin et al. 2017); pbt gives those that trail the weights of the leaders, with settings changed a little
    (Jaderberg et al. 2017); pb2 does so with settings that a model of the changes so far proposes (Parker-Holder et al.
    2020), and needs the package GPy."""
    grace_steps: PositiveInt | None = None
    """asha, median: steps that every trial gets; the recipe's validation interval when absent."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """asha, hyperband: one in this many goes on past each rung."""
    interval_steps: PositiveInt | None = None
    """pbt, pb2: steps between two exchanges; the recipe's validation interval when absent."""
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25
    """pbt, pb2: share of trials that give, and share that take."""
    resample: Annotated[float, Field(ge=0, le=1)] = 0.25
    """pbt: how likely a changed setting is drawn anew rather than multiplied by 0.8 or 1.2."""
    synchronous: bool = False
    """pbt, pb2: whether all trials wait for the last at each exchange: none is compared with one that has trained less,
    and a population larger than what runs at a time takes turns. Trials in processes are started anew at each."""
    mutate: list[str] | None = None
    """pbt, pb2: paths of the space that change on the way; those that may when absent."""

    @model_validator(mode="after")
    def _only_its_own(self) -> Scheduler:
        of_kind = {
            "grace_steps": ("asha", "median"), "reduction": ("asha", "hyperband"), "interval_steps": POPULATIONS,
            "quantile": POPULATIONS, "resample": ("pbt",), "synchronous": POPULATIONS, "mutate": POPULATIONS,
        }  # fmt: skip
        for name, kinds in of_kind.items():
            # A resolved recipe has every default written out.
            if self.kind not in kinds and getattr(self, name) != type(self).model_fields[name].default:
                raise ValueError(f"{name} is a setting of {' and '.join(kinds)}, not of {self.kind}; leave it out")
        return self


class SweepSection(Section):
    """A recipe's `sweep` section."""

    metric: str = "val/loss"
    """Name of the metric that decides, as it stands in metrics.jsonl."""
    mode: Literal["min", "max"] = "min"
    """Whether less or more of the metric is better."""
    trials: PositiveInt
    """How many trials to run; a grid has its own number."""
    searcher: Literal["random", "grid", "sobol", "tpe", "cmaes", "bohb"] = "random"
    """How values are proposed: at random; all of a grid; by a scrambled Sobol sequence, which fills the space more
    evenly (Owen 1998); by Optuna's tree-structured Parzen estimator (Bergstra et al. 2011) or its CMA-ES (Hansen 2016),
    which learn from the trials so far; by BOHB (Falkner et al. 2018), which learns from all rungs of hyperband, and
    needs the packages hpbandster and ConfigSpace."""
    seed: int | None = None
    """Seed of the proposals; trainer.seed when absent."""
    scheduler: Scheduler = Scheduler()
    """Which trials go on."""
    max_concurrent: PositiveInt | None = None
    """Trials at a time; one a CPU core or GPU when absent."""
    fuse: Literal["auto", "on", "off"] | PositiveInt = "auto"
    """Whether trials are trained together as rows of one array, where the space changes no shape: auto measures what is
    faster, a number is the most rows at a time, off is a process each."""
    arrays: PositiveInt | None = None
    """Processes that each train an array; when absent one a GPU where there are several, else this process alone."""
    gpus_per_trial: Annotated[float, Field(gt=0)] | None = None
    """GPUs of a trial on one process, such as 0.25 for four on each; one, or a share where trials outnumber them, when
    absent."""
    retries: Annotated[int, Field(ge=0)] = 2
    """How often a trial whose process died is gone on with, from its newest checkpoint."""
    proxy: dict[str, Any] | None = None
    """Changes that make a narrow copy of the net, which is searched in its place, such as `model.width: 128`; the best
    is then trained at full width. For init.kind mup."""
    space: dict[str, Distribution] = Field(min_length=1)
    """Dotted paths of the recipe and what to draw for each: `optim.lr: {loguniform: [1e-4, 1e-1]}`."""

    @model_validator(mode="before")
    @classmethod
    def _short_scheduler(cls, value: Any) -> Any:
        if isinstance(value, dict) and isinstance(value.get("scheduler"), str):
            return {**value, "scheduler": {"kind": value["scheduler"]}}
        return value

    @field_validator("fuse", mode="before")
    @classmethod
    def _yaml_switch(cls, value: Any) -> Any:
        # YAML reads on and off as true and false.
        return {True: "on", False: "off"}[value] if isinstance(value, bool) else value

    @model_validator(mode="after")
    def _grid_has_values(self) -> SweepSection:
        endless = [path for path, drawn in self.space.items() if drawn.values is None]
        if self.searcher == "grid" and endless:
            raise ValueError(f"searcher is grid, but {endless[0]} is no choice; list its values or use random")
        if self.searcher == "cmaes" and not [path for path in endless if self.space[path].when is None]:
            raise ValueError("searcher is cmaes, but the space has no range that is always drawn; use tpe")
        population = self.scheduler.kind in POPULATIONS
        if population and self.searcher in ("tpe", "cmaes", "bohb"):
            raise ValueError(
                f"scheduler is {self.scheduler.kind}, which proposes settings itself; "
                f"use random or sobol, not {self.searcher}"
            )
        if self.searcher == "bohb" and self.scheduler.kind != "hyperband":
            raise ValueError("searcher is bohb, which learns from hyperband's rungs; set scheduler to hyperband")
        return self

    @model_validator(mode="after")
    def _conditions_are_sound(self) -> SweepSection:
        order = list(self.space)
        for path, drawn in self.space.items():
            for other, wanted in (drawn.when or {}).items():
                if other not in self.space:
                    raise ValueError(f"space.{path}: when names {other}, which is not in the space")
                if order.index(other) >= order.index(path):
                    raise ValueError(f"space.{path}: when names {other}, which should come before it in the space")
                for value in wanted if isinstance(wanted, list) else [wanted]:
                    if value not in (self.space[other].values or []):
                        raise ValueError(f"space.{path}: when wants {other} to be {value!r}, which it never is")
        return self

    def active(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the values whose conditions hold: a sample as a recipe is changed by it."""
        kept: dict[str, Any] = {}
        for path, drawn in self.space.items():
            if path in values and all(
                other in kept and kept[other] in (wanted if isinstance(wanted, list) else [wanted])
                for other, wanted in (drawn.when or {}).items()
            ):
                kept[path] = values[path]
        return kept

    def grid(self) -> list[dict[str, Any]]:
        """Returns every sample of a grid, each once, the last path of the space going fastest."""
        samples: list[dict[str, Any]] = [{}]
        for path, drawn in self.space.items():
            samples = [{**sample, path: value} for sample in samples for value in drawn.values or []]
        return list({repr(active): active for active in map(self.active, samples)}.values())

    @property
    def num_trials(self) -> int:
        """Returns how many trials there will be."""
        return len(self.grid()) if self.searcher == "grid" else self.trials
