"""What stops, pauses and changes trials: Ray's schedulers, set up from a recipe's `sweep.scheduler`."""

from __future__ import annotations

import math
from typing import Any

from ray.tune.schedulers import TrialScheduler

from headway.config.space import POPULATIONS
from headway.sweep._proposals import Proposals, to_domain
from headway.sweep.check import Plan


def build_scheduler(plan: Plan, proposals: Proposals) -> Any:
    """Returns the scheduler of a plan, which knows what the sweep knew before it was gone on with."""
    from ray.tune import schedulers

    settings = plan.search.scheduler
    if settings.kind == "asha":
        asha = schedulers.ASHAScheduler(
            time_attr="step",
            grace_period=plan.grace_steps,
            reduction_factor=settings.reduction,
            max_t=plan.total_steps,
            # A trial ends by itself at its last step, tested and closed.
            stop_last_trials=False,
        )
        return Remembering(asha, proposals)
    if settings.kind == "median":
        # Pausing a trial to give another its turn would save and load it for nothing.
        rule = schedulers.MedianStoppingRule(
            time_attr="step", grace_period=plan.grace_steps, min_time_slice=plan.total_steps
        )
        return Remembering(rule, proposals)
    if settings.kind == "hyperband":
        brackets = schedulers.HyperBandForBOHB if plan.search.searcher == "bohb" else schedulers.HyperBandScheduler
        return brackets(
            time_attr="step", max_t=plan.total_steps, reduction_factor=settings.reduction, stop_last_trials=False
        )
    if settings.kind in POPULATIONS:
        return _population(plan, proposals)
    return schedulers.FIFOScheduler()


def stops_nothing(plan: Plan, num_trials: int) -> str | None:
    """Returns a line for a person where no trial will be stopped; None elsewhere.

    Ray fills hyperband's brackets one after another, and begins with the one that lets all of its trials finish. BOHB's
    form of it begins with the one that stops most.
    """
    settings = plan.search.scheduler
    if settings.kind != "hyperband" or plan.search.searcher == "bohb":
        return None
    unstopped = round(math.log(plan.total_steps) / math.log(settings.reduction)) + 1
    if num_trials > unstopped:
        return None
    return (
        f"hyperband stops none of {num_trials} trials: its first bracket, of {unstopped}, lets all finish; "
        "asha stops from the first on"
    )


def _population(plan: Plan, proposals: Proposals) -> Any:
    """Returns population based training over the paths that may change while a trial trains.

    Source: Jaderberg et al. 2017, algorithm 1.
    """
    from headway.sweep._population import Population

    settings, space = plan.search.scheduler, plan.search.space

    def keep_in_range(config: dict[str, Any]) -> dict[str, Any]:
        return {**config, **{path: space[path].clamped(config[path]) for path in plan.mutated if path in config}}

    shared = {
        "time_attr": "step",
        "perturbation_interval": plan.interval_steps,
        "quantile_fraction": settings.quantile,
        "custom_explore_fn": keep_in_range,
        "log_config": False,
        "synch": settings.synchronous,
    }
    if settings.kind == "pb2":
        from ray.tune.schedulers.pb2 import PB2

        class Modelled(PB2, Population):  # type: ignore[misc]  # Ray has no types
            """Source: Parker-Holder et al. 2020, algorithm 1."""

        found = Modelled(hyperparam_bounds={path: list(space[path].bounds) for path in plan.mutated}, **shared)
    else:
        found = Population(
            # A list is gone through step by step, a range is multiplied.
            hyperparam_mutations={path: space[path].values or to_domain(space[path]) for path in plan.mutated},
            resample_probability=settings.resample,
            **shared,
        )
    found.at_a_time = proposals.at_a_time
    found.size = plan.num_trials - proposals.num_ended
    found.start_after(proposals.reached)
    return found


class Remembering(TrialScheduler):  # type: ignore[misc]  # Ray has no types
    """A scheduler that is told first what happened before a resume: rungs and medians are of all trials.

    Args:
        inner: Ray's scheduler, which decides by reports alone.
        proposals: knows what happened.
    """

    def __init__(self, inner: Any, proposals: Proposals) -> None:
        super().__init__()
        self.inner = inner
        self.proposals = proposals

    def __getstate__(self) -> dict[str, Any]:
        """Returns nothing: Ray keeps a copy of what it is given, but the journal is the sweep's record."""
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Remembering:
        """Returns itself: there is one account of a sweep."""
        return self

    def _remember(self, controller: Any) -> None:
        past, self.proposals.past = self.proposals.past, []
        for was in past:
            trial, kind = was.trial, was.event.kind
            if kind == "propose":
                self.inner.on_trial_add(controller, trial)
            elif kind == "report" and was.event.value is not None:
                self.inner.on_trial_result(controller, trial, was.result)
            elif kind == "end" and was.result:
                self.inner.on_trial_complete(controller, trial, was.result)
            elif kind == "end":
                self.inner.on_trial_remove(controller, trial)

    # ---- what Tune asks ------------------------------------------------------------------------------

    @property
    def metric(self) -> str | None:
        """Returns what it decides by."""
        return str(self.inner.metric)

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Hands the metric on."""
        return bool(self.inner.set_search_properties(metric, mode, **spec))

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Takes a trial, and before the first of them what was before."""
        self._remember(tune_controller)
        self.inner.on_trial_add(tune_controller, trial)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Hears of a trial whose process ended."""
        self.inner.on_trial_error(tune_controller, trial)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Decides at a validation."""
        return str(self.inner.on_trial_result(tune_controller, trial, result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Hears of a trial's end."""
        self.inner.on_trial_complete(tune_controller, trial, result)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:
        """Hears of a trial that ended while it did not run."""
        self.inner.on_trial_remove(tune_controller, trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        """Returns the trial that goes next."""
        return self.inner.choose_trial_to_run(tune_controller)

    def debug_string(self) -> str:
        """Returns what Ray prints of it."""
        return str(self.inner.debug_string())
