"""A population whose members may wait for each other: Ray's schedulers, which here wait for all and for nobody in vain.

Ray exchanges among those that it has been given so far; members that are proposed when others make room come later.
Where all wait for the last at each exchange, Ray names the step of the next one by that of the last. Nobody may be left
who can reach it: validations may be further apart than exchanges, a sweep that is gone on with begins past it, and a
member that is waited for may fail. Then each would wait for ever.
"""

from __future__ import annotations

from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import PopulationBasedTraining


class Population(PopulationBasedTraining):  # type: ignore[misc]  # Ray has no types
    """Population based training in which somebody can always go on; a base of PB2's form of it, too."""

    at_a_time: int | None = None
    """Most members that train at once; None leaves that to Ray's resources."""

    size: int = 0
    """Members that there will be."""

    def start_after(self, step: int) -> None:
        """Has the first exchange come after a step that a member has reached before."""
        self._next_perturbation_sync = self._next_exchange(step)

    def _next_exchange(self, step: int) -> int:
        interval = int(self._perturbation_interval)
        return (step // interval + 1) * interval

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """Decides at a validation."""
        if self._synch and len(self._trial_state) < self.size:
            state, step = self._trial_state[trial], result[self._time_attr]
            if step - state.last_perturbation_time < self._perturbation_interval:
                return str(self.CONTINUE)
            self._save_trial_state(state, step, result, trial)
            return str(self.PAUSE)
        before = self._next_perturbation_sync
        decision = str(super().on_trial_result(tune_controller, trial, result))
        if self._next_perturbation_sync != before:
            # All who still train have exchanged; those that have ended are at steps that need not concern them.
            reached = [self._trial_state[other].last_train_time for other in _unended(tune_controller)]
            self._next_perturbation_sync = self._next_exchange(max(reached, default=before))
        return decision

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """Returns the member that goes next."""
        chosen = super().choose_trial_to_run(tune_controller)
        unended = _unended(tune_controller)
        if chosen is None and self._synch and unended and all(member.status == Trial.PAUSED for member in unended):
            # The one they waited for has ended without a report: what it would have set off is done at another's last.
            self.on_trial_result(tune_controller, unended[0], self._trial_state[unended[0]].last_result)
            chosen = super().choose_trial_to_run(tune_controller)
        out = sum(member.status in (Trial.RUNNING, Trial.PENDING) for member in unended)
        if chosen and chosen.status == Trial.PAUSED and self.at_a_time is not None and out >= self.at_a_time:
            return None
        return chosen


def _unended(tune_controller: Any) -> list[Trial]:
    return [trial for trial in tune_controller.get_trials() if not trial.is_finished()]
