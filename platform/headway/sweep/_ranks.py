"""A trial on several processes: its ranks are Ray actors beside it, in what Tune has reserved for the trial.

Tune reserves one placement group a trial, with a bundle for each rank, so that trials never wait for each other's
halves. Ray Train is not used for this: its runs reserve a group of their own, of which Tune knows nothing, and set up
the process group that here is `fit`'s. Each rank is `fit` as any launcher starts it, by RANK and its like in the
environment.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import Any

import ray
from ray.exceptions import RayError
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from headway.config.errors import HeadwayError
from headway.fit import RUN_FOLDER_VARIABLE, fit
from headway.run import replace_file
from headway.sweep._trial import Conversation
from headway.sweep._trial_run import SAVE_EVERY_S, TrialJob, TrialRun

_END_WITHIN_S = 60.0


class RankedTrial:
    """A trial on several processes.

    Args:
        trial: which.
    """

    def __init__(self, trial: TrialRun) -> None:
        self.trial = trial
        self._ranks: list[Any] = []
        self._others: list[Any] = []
        """What the ranks but the first come to."""
        self._over = False

    def advance(self) -> dict[str, Any]:
        """Goes on to the next report and returns it; `done` comes with or after the last.

        Raises:
            RayActorError: a rank's process died.
        """
        if not self._ranks:
            try:
                self._start()
            except HeadwayError as error:
                self.trial.record(error)
                return self.trial.last_report()
        report = self._ranks[0].advance.remote()
        while True:
            ended, _ = ray.wait([report, *self._others], num_returns=1)
            if ended[0] is report:
                break
            self._others.remove(ended[0])
            # Raises where that rank's process died: the first one would wait for it in vain.
            ray.get(ended[0])
        told: dict[str, Any] = ray.get(report)
        if told.pop("ended", False):
            self._over = True
            # A rank that died takes the others' training with it: that is worth another try, unlike an error of theirs.
            ray.get(self._others)
            self._leave()
            return self.trial.last_report() if not told else {**told, "done": True}
        return told

    def stop(self) -> None:
        """Ends the fit, if it has not ended, and waits until its run folder is closed."""
        if self._ranks and not self._over:
            # One that cannot end any more is ended below.
            with contextlib.suppress(RayError):
                ray.get([self._ranks[0].stop.remote(), *self._others], timeout=_END_WITHIN_S)
        self._leave()

    def _leave(self) -> None:
        for rank in self._ranks:
            ray.kill(rank)
        self._ranks, self._others = [], []

    def _start(self) -> None:
        """Starts the ranks, which meet at the first."""
        trial, world = self.trial, self.trial.job.ranks
        recipe = trial.begin()
        # Ranks read the recipe there.
        replace_file(trial.run.recipe, recipe.yaml())
        group = ray.util.get_current_placement_group()
        self._ranks = [
            _Rank.options(  # type: ignore[attr-defined]
                num_cpus=1,
                num_gpus=1 if trial.job.on_gpu else 0,
                scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=rank),
            ).remote(trial.job, trial.number, trial.sample)
            for rank in range(world)
        ]
        nodes = ray.get([rank.node.remote() for rank in self._ranks])
        address, port = ray.get(self._ranks[0].meeting_point.remote())
        joining = []
        for rank, actor in enumerate(self._ranks):
            environment = {
                "RANK": rank, "WORLD_SIZE": world, "LOCAL_RANK": nodes[:rank].count(nodes[rank]),
                "LOCAL_WORLD_SIZE": nodes.count(nodes[rank]), "MASTER_ADDR": address, "MASTER_PORT": port,
                RUN_FOLDER_VARIABLE: trial.run.path,
            }  # fmt: skip
            joining.append(actor.join.remote({name: str(value) for name, value in environment.items()}))
        ray.get(joining)
        self._others = [actor.follow.remote() for actor in self._ranks[1:]]


@ray.remote(max_concurrency=2)
class _Rank:
    """One process of a trial."""

    def __init__(self, job: TrialJob, number: int, sample: dict[str, Any]) -> None:
        os.chdir(job.folder)
        self.trial = TrialRun(job, number, sample)
        self._conversation = Conversation(f"{self.trial.run.id} rank", self._work)

    def node(self) -> str:
        """Returns where this process runs."""
        return str(ray.get_runtime_context().get_node_id())

    def meeting_point(self) -> tuple[str, int]:
        """Returns an address and a free port of this process's machine."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), int(probe.getsockname()[1])

    def join(self, environment: dict[str, str]) -> None:
        """Makes this process a rank."""
        os.environ.update(environment)

    def advance(self) -> dict[str, Any]:
        """Trains as the first rank up to the next report; with `ended` at the end."""
        return self._conversation.advance()

    def follow(self) -> None:
        """Trains as another rank, to the end."""
        self._conversation.advance()

    def stop(self) -> None:
        """Ends the training at the report where it waits."""
        self._conversation.stop()

    def _work(self, ask: Any) -> dict[str, Any]:
        trial, first = self.trial, os.environ["RANK"] == "0"
        recipe = trial.recipe()
        # All ranks hear the first one's answer; what the others say is not asked for.
        on_report = trial.reporter(recipe, ask) if first else lambda _: True
        try:
            fit(
                recipe,
                resume=str(trial.run.path),
                trust=trial.job.trust,
                on_report=on_report,
                argv=trial.argv,
                progress=False,
                save_every_s=SAVE_EVERY_S,
            )
        except HeadwayError as error:
            if first:
                trial.record(error)
        except Exception as error:
            if first:
                trial.record(HeadwayError(f"{type(error).__name__}: {error}"))
        return {**trial.last_report(), "ended": True} if first else {}
