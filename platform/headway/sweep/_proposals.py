"""What proposes trials: Ray's searchers, by the numbers of headway's trials, and with what they knew before a resume.

`Proposals` stands between Tune and one of Ray's searchers. It counts trials, leaves out of a sample what its conditions
exclude, and tells the ledger of each. When a sweep goes on, it first does with the searcher what was done with it
before (proposals, reports and ends, in their order), so that the searcher remembers; Tune then gets the trials that had
not ended, and new ones after them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ray.tune.search import SearchAlgorithm

from headway.config.space import Distribution, SweepSection
from headway.sweep._trial import trial_number
from headway.sweep.journal import Event

if TYPE_CHECKING:
    from headway.sweep.ledger import Ledger


@dataclass(frozen=True)
class Past:
    """Something that happened to a trial before the sweep was gone on with, as Tune's parts know trials."""

    event: Event
    trial: Any
    result: dict[str, Any]


class Proposals(SearchAlgorithm):  # type: ignore[misc]  # Ray has no types
    """Proposes the trials of a sweep.

    Args:
        ledger: hears of each proposal, and knows what was proposed before.
        inner: Ray's searcher.
        at_a_time: most trials that are out at once; None leaves that to Tune.
    """

    def __init__(self, ledger: Ledger, inner: Any, *, at_a_time: int | None) -> None:
        self.ledger = ledger
        self.inner = inner
        self.at_a_time = at_a_time
        self.past: list[Past] = []
        """What schedulers are told before they see the first trial of a sweep that is gone on with."""
        self._search = ledger.plan.search
        self._own_ids: dict[str, str] = {}
        """The searcher's name of each trial that is out."""
        self._out: dict[str, Any] = {}
        """Those trials."""
        self._told: dict[int, int] = {}
        """The last step of each trial that the searcher heard of."""
        self._again: list[Any] = []
        """Trials that had not ended."""
        self._proposed = 0

    def __getstate__(self) -> dict[str, Any]:
        """Returns nothing: Ray keeps a copy of what it is given, but the journal is the sweep's record."""
        return {}

    def __deepcopy__(self, memo: dict[int, Any]) -> Proposals:
        """Returns itself: there is one account of a sweep."""
        return self

    # ---- what Tune asks ------------------------------------------------------------------------------

    @property
    def metric(self) -> str:
        """Returns the sweep's metric."""
        return self._search.metric

    def set_search_properties(self, metric: str | None, mode: str | None, config: dict[str, Any], **spec: Any) -> bool:
        """Hands Tune's settings on."""
        return bool(self.inner.set_search_properties(metric, mode, config, **spec))

    @property
    def total_samples(self) -> int:
        """Returns how many trials there will be."""
        return self._search.num_trials

    def add_configurations(self, experiments: Any) -> None:
        """Takes what trials are made of, and repeats what was before."""
        self.inner.add_configurations(experiments)
        self._remember()

    def next_trial(self) -> Any:
        """Returns a trial; None where there is none, or none yet."""
        if self._again:
            return self._again.pop(0)
        # One that waits for others of its bracket or population takes no place.
        out = sum(trial.status != trial.PAUSED for trial in self._out.values())
        if self.is_finished() or (self.at_a_time is not None and out >= self.at_a_time):
            return None
        trial = self._propose()
        if trial is not None:
            self.ledger.propose(self._proposed - 1, trial.config)
        return trial

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Tells the searcher of a validation."""
        # A trial that fails before its first validation has nothing to tell.
        if result.get(self.metric) is None:
            return
        number, step = trial_number(trial_id), int(result["step"])
        if step <= self._told.get(number, 0):
            # A row that was killed makes some of its reports again.
            return
        self._told[number] = step
        self.inner.on_trial_result(self._own_ids[trial_id], result)
        budget = result.get("hyperband_info", {}).get("budget")
        if budget is not None:
            self.ledger.learn(number, result[self.metric], budget)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tells the searcher of the end of a trial."""
        own = self._own_ids.pop(trial_id, None)
        self._out.pop(trial_id, None)
        if own is not None:
            told = result if result and result.get(self.metric) is not None else None
            self.inner.on_trial_complete(own, result=told, error=error or told is None)

    def is_finished(self) -> bool:
        """Returns whether every trial has been proposed."""
        return self._finished or (not self._again and self._proposed >= self.total_samples)

    @property
    def num_ended(self) -> int:
        """Returns how many trials had ended before the sweep was gone on with."""
        return len(_ended(self.ledger.past))

    @property
    def reached(self) -> int:
        """Returns the furthest step of the trials that had not ended, before the sweep was gone on with."""
        past = self.ledger.past
        ended = _ended(past)
        return max((event.step or 0 for event in past if event.number not in ended), default=0)

    @property
    def searcher(self) -> Proposals:
        """Returns what BOHB's scheduler tells of pauses: this, which knows the searcher's names of trials."""
        return self

    def on_pause(self, trial_id: str) -> None:
        """Tells BOHB that a trial waits for its rung."""
        self.inner.searcher.on_pause(self._own_ids[trial_id])

    def on_unpause(self, trial_id: str) -> None:
        """Tells BOHB that a trial goes on."""
        self.inner.searcher.on_unpause(self._own_ids[trial_id])

    # ---- how trials come about ------------------------------------------------------------------------

    def _propose(self) -> Any:
        """Returns the searcher's next trial under its number; None where it has none yet."""
        trial = self.inner.next_trial()
        if trial is None:
            return None
        own, number = trial.trial_id, self._proposed
        self._proposed += 1
        # The number stands at the end, where `trial_number` reads it.
        trial.trial_id = f"{self.ledger.folder.id}_{number:05d}"
        self._own_ids[trial.trial_id] = own
        self._out[trial.trial_id] = trial
        space = self._search.space
        # Ray's quantized values have the dust of binary fractions on them.
        drawn = {path: space[path].clamped(_plain(value)) for path, value in trial.config.items() if path in space}
        sample = self._search.active(drawn)
        trial.set_config(sample)
        trial.evaluated_params = dict(sample)
        return trial

    def _remember(self) -> None:
        """Does with the searcher what was done with it before."""
        trials: dict[int, Any] = {}
        results: dict[int, dict[str, Any]] = {}
        for event in self.ledger.past:
            if event.kind == "propose":
                trial = self._propose()
                if trial is None:
                    break
                trials[event.number] = trial
            trial = trials.get(event.number)
            if trial is None:
                continue
            if event.config is not None:
                # A searcher of another version may propose otherwise; what was tried is what counts.
                trial.set_config(dict(event.config))
                trial.evaluated_params = dict(event.config)
            if event.kind == "report":
                results[event.number] = {
                    self.metric: event.value, "step": event.step, "training_iteration": event.iteration,
                    "trial_id": trial.trial_id, "config": trial.config, "time_total_s": 0.0,
                }  # fmt: skip
                self._told[event.number] = max(event.step or 0, self._told.get(event.number, 0))
                if event.value is not None and not event.last and self._search.searcher != "bohb":
                    self.inner.on_trial_result(self._own_ids[trial.trial_id], results[event.number])
            elif event.kind == "learn":
                rung = {self.metric: event.value, "hyperband_info": {"budget": event.budget}}
                self.inner.on_trial_result(self._own_ids[trial.trial_id], rung)
            elif event.kind == "end":
                self.on_trial_complete(trial.trial_id, results.get(event.number), error=event.status == "failed")
            self.past.append(Past(event, trial, results.get(event.number, {})))
        ended = _ended(past.event for past in self.past)
        self._again = [trial for number, trial in sorted(trials.items()) if number not in ended]


def _ended(events: Iterable[Event]) -> set[int]:
    """Returns the numbers of the trials that ended."""
    return {event.number for event in events if event.kind == "end"}


def build_searcher(search: SweepSection, *, seed: int) -> tuple[Any, dict[str, Any]]:
    """Returns Ray's searcher and the `param_space` that Tune is to have; the same seed proposes the same trials."""
    # numpy's generator takes 32 bits.
    seed = seed % 2**32
    if search.searcher in ("tpe", "cmaes"):
        return _optuna(search, seed), {}
    domains = {path: to_domain(drawn) for path, drawn in search.space.items()}
    if search.searcher == "bohb":
        from ray.tune.search import SearchGenerator
        from ray.tune.search.bohb import TuneBOHB

        return SearchGenerator(TuneBOHB(seed=seed)), domains
    from ray.tune.search.basic_variant import BasicVariantGenerator

    points = _sobol(search, seed) if search.searcher == "sobol" else []
    if search.searcher == "grid":
        # What a condition excludes is left out of the sample again.
        filled = {path: drawn.extremes()[0] for path, drawn in search.space.items()}
        points = [{**filled, **sample} for sample in search.grid()]
    return BasicVariantGenerator(points_to_evaluate=points, random_state=seed), domains


def _plain(value: Any) -> Any:
    """Returns Python's number or string for one of numpy's."""
    return value.item() if hasattr(value, "item") else value


def _sobol(search: SweepSection, seed: int) -> list[dict[str, Any]]:
    """Returns the samples of a scrambled Sobol sequence, one dimension a path.

    Source: Owen 1998, "Scrambling Sobol' and Niederreiter-Xing points".
    """
    import torch

    engine: Any = torch.quasirandom.SobolEngine
    quantile_ND = engine(len(search.space), scramble=True, seed=seed).draw(search.trials, dtype=torch.float64)
    return [
        {path: drawn.at(quantile) for (path, drawn), quantile in zip(search.space.items(), row, strict=True)}
        for row in quantile_ND.tolist()
    ]


def _optuna(search: SweepSection, seed: int) -> Any:
    """Returns Ray's searcher over Optuna, which asks for the paths whose conditions hold."""
    import optuna
    from ray.tune.search import SearchGenerator
    from ray.tune.search.optuna import OptunaSearch

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    samplers = optuna.samplers
    sampler = (
        samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
        if search.searcher == "cmaes"
        else samplers.TPESampler(seed=seed)
    )

    def ask(trial: Any) -> dict[str, Any]:
        sample: dict[str, Any] = {}
        for path, drawn in search.space.items():
            if path in search.active({**sample, path: None}):
                sample[path] = _suggest(trial, path, drawn)
        return sample

    return SearchGenerator(OptunaSearch(ask, sampler=sampler, metric=search.metric, mode=search.mode))


def _suggest(trial: Any, path: str, drawn: Distribution) -> Any:
    """Returns Optuna's value for a path."""
    if drawn.way == "value":
        return drawn.value
    if drawn.choice is not None:
        # Optuna takes plain values alone; anything else goes by its place.
        plain = all(value is None or isinstance(value, str | int | float | bool) for value in drawn.choice)
        if plain:
            return trial.suggest_categorical(path, drawn.choice)
        return drawn.choice[trial.suggest_categorical(f"{path} (place)", list(range(len(drawn.choice))))]
    low, high = drawn.bounds
    if drawn.way in ("randint", "lograndint"):
        return trial.suggest_int(path, int(low), int(high), log=drawn.is_logarithmic)
    if drawn.quniform is not None:
        return drawn.clamped(trial.suggest_float(path, low, high, step=drawn.quniform[2]))
    return drawn.clamped(trial.suggest_float(path, low, high, log=drawn.is_logarithmic))


def to_domain(drawn: Distribution) -> Any:
    """Returns Ray's form of a distribution."""
    from ray import tune

    if drawn.way == "value":
        return drawn.value
    bounds = getattr(drawn, drawn.way)
    # A list is one argument; bounds are two or three.
    return tune.choice(bounds) if drawn.way == "choice" else getattr(tune, drawn.way)(*bounds)
