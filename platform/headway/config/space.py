"""What a sweep may vary: a dotted path of the recipe to a distribution over its values."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveInt, field_validator, model_validator

from headway.config.section import Section

Range = Annotated[tuple[float, float], Field(strict=False)]


class Distribution(Section):
    """Exactly one of the ways to draw a value."""

    choice: list[Any] | None = None
    """One of these values, each as likely; a grid tries them all."""
    uniform: Range | None = None
    """A real number in [low, high)."""
    loguniform: Range | None = None
    """A real number whose logarithm is uniform; low is above 0."""
    randint: Annotated[tuple[int, int], Field(strict=False)] | None = None
    """A whole number in [low, high)."""

    @model_validator(mode="after")
    def _one_sound_way(self) -> Distribution:
        ways = [name for name in self.model_fields_set if getattr(self, name) is not None]
        if len(ways) != 1:
            raise ValueError(
                f"has {', '.join(sorted(ways)) or 'nothing'}; give one of choice, uniform, loguniform, randint"
            )
        if self.choice is not None and not self.choice:
            raise ValueError("choice is empty; list the values to try")
        for name in ("uniform", "loguniform", "randint"):
            bounds = getattr(self, name)
            if bounds is not None and not bounds[0] < bounds[1]:
                raise ValueError(f"{name} is {list(bounds)}; low should be less than high")
        if self.loguniform is not None and self.loguniform[0] <= 0:
            raise ValueError(f"loguniform is {list(self.loguniform)}; low should be above 0, whose logarithm is not")
        return self

    def extremes(self) -> list[Any]:
        """Returns the values that a recipe must accept for the whole distribution to be sound."""
        if self.choice is not None:
            return list(self.choice)
        if self.randint is not None:
            return [self.randint[0], self.randint[1] - 1]
        low, high = self.uniform or self.loguniform or (0.0, 0.0)
        return [low, math.nextafter(high, low)]


class Scheduler(Section):
    """Which trials go on."""

    kind: Literal["fifo", "asha"] = "fifo"
    """fifo lets every trial finish; asha stops those that trail at a rung (Li et al. 2020)."""
    grace_steps: PositiveInt | None = None
    """asha: steps that every trial gets; the recipe's validation interval when absent."""
    reduction: Annotated[int, Field(ge=2)] = 3
    """asha: one in this many goes on past each rung."""


class SweepSection(Section):
    """A recipe's `sweep` section."""

    metric: str = "val/loss"
    """Name of the metric that decides, as it stands in metrics.jsonl."""
    mode: Literal["min", "max"] = "min"
    """Whether less or more of the metric is better."""
    trials: PositiveInt
    """How many trials to run; a grid has its own number."""
    searcher: Literal["random", "grid"] = "random"
    """How values are proposed."""
    seed: int | None = None
    """Seed of the proposals; trainer.seed when absent."""
    scheduler: Scheduler = Scheduler()
    """Which trials go on."""
    max_concurrent: PositiveInt | None = None
    """Trials at a time; one a CPU core or GPU when absent."""
    fuse: Literal["auto", "on", "off"] | PositiveInt = "auto"
    """Whether trials are trained together as rows of one array, where the space changes no shape: auto measures what is
    faster, a number is the most rows at a time, off is a process each."""
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
        endless = [path for path, drawn in self.space.items() if drawn.choice is None]
        if self.searcher == "grid" and endless:
            raise ValueError(f"searcher is grid, but {endless[0]} is no choice; list its values or use random")
        return self
