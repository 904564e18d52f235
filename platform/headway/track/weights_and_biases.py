"""One W&B run for a whole job, through W&B's own SDK: written on rank 0, kept in the run folder.

Without a key or a server that answers the run is written offline, at once and whole; `headway sync` uploads it later.
Its id is the run folder's, so a resumed run goes on as the same W&B run. Under `wandb agent` the agent's id, project
and entity take the place of ours, which is W&B's own doing.

W&B's own step is the optimizer step. It only ever grows, so that a row which is made again after a resume has its
place taken, and one that a crash kept from W&B is taken from metrics.jsonl.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headway.config.errors import Stopped, UserError
from headway.run import read_metrics
from headway.track.artifacts import best_of, log_checkpoints, log_code
from headway.track.fragments import described, last_step_on_disk, list_fragments, mark_synced, once_written
from headway.track.media import give_media, read_index
from headway.track.node_monitor import EVERY_S, NodeRows
from headway.track.patience import SERVERS, Deadline, Worker, within
from headway.track.upload_copies import is_for_wandb
from headway.track.wandb_server import (
    NoAnswer,
    WandbServer,
    known_address,
    known_key,
    known_mode,
    known_project,
    known_server,
    quiet_wandb,
)

if TYPE_CHECKING:
    from headway.recipe import Recipe
    from headway.run import RunFolder

Mode = Literal["online", "offline", "disabled"]
Row = dict[str, Any]
Work = Callable[[Any], None]
"""Something to do with the SDK's run, in its turn among the rows."""
Log = Callable[[Any, "RunFolder"], None]
"""Gives the SDK's run something that lies in a run folder."""

PROBE_S = 4.0
INIT_S = 5.0
"""With the probe, what a server that has fallen silent may cost a run's start."""
END_S = 30.0
"""How long a run's end may wait for W&B, all in all; everything is on the disk already."""
FINISH_S = 20.0
"""How much of that W&B's own process has for what is not uploaded yet, once it has heard of all."""
AGAIN_S = 1.0
"""How long the ends of this process's other runs wait, once one was in vain."""
FLUSH_EVERY_S = 5.0
_NEARLY_NOTHING = 1 << 20


@dataclass(frozen=True)
class Choice:
    """Where metrics go."""

    mode: Mode
    why: str = ""
    """Why not online, where nobody asked for that."""


def choose_mode(wanted: str) -> Choice:
    """Returns where metrics can go: `auto` is online with a key and a server that answers.

    The environment's WANDB_MODE, W&B's own switch, decides for `auto`.

    Raises:
        UserError: online was asked for and there is no key.
    """
    wanted = check_mode(wanted)
    if wanted == "disabled":
        return Choice("disabled")
    if wanted == "offline":
        return Choice("offline")
    key = known_key()
    if not key:
        return Choice("offline", "there is no key")
    url = known_address()
    problem = SERVERS.recall(url) or _ask(url, key)
    return Choice("online") if problem is None else Choice("offline", problem)


def _ask(url: str, key: str) -> str | None:
    """Returns why a server takes no runs; one that says nothing is not asked for each run of an array."""
    server = WandbServer(url, key)
    problem = server.why_not(within_s=PROBE_S)
    if problem and server.is_silent:
        SERVERS.remember(url, problem)
    return problem


def check_mode(wanted: str) -> str:
    """Returns what is asked for, by the recipe or, where that leaves it open, by the environment. Asks no server.

    Raises:
        UserError: online was asked for and there is no key, or WANDB_MODE says something that W&B does not know.
    """
    said = known_mode() if wanted != "disabled" else None
    setting, mode = ("WANDB_MODE", said) if wanted == "auto" and said else ("track.wandb", wanted)
    if mode == "online" and not known_key():
        raise UserError(f"{setting}: online, but there is no key; run `wandb login`, or use track.wandb=offline")
    return mode


class WandbSink:
    """Sends a run's rows to W&B, from a thread of its own.

    Args:
        run: the run folder; W&B's files go to its `wandb/`.
        recipe: becomes the run's config, with dotted names.
        choice: online or offline.
        resumed_at: the step from which the run goes on; None for a new one.
        alone: whether this process trains this run and no other; those of an array have no monitor each.
        say: told in one line what a person should know.
    """

    def __init__(
        self,
        run: RunFolder,
        recipe: Recipe,
        choice: Choice,
        *,
        resumed_at: int | None = None,
        alone: bool = True,
        say: Callable[[str], None] = lambda _: None,
    ) -> None:
        self.every = recipe.track.wandb_every
        self.folder = run
        self.problem = ""
        """What keeps W&B from having all of the run."""
        self._broken = False
        """Whether W&B's own process takes no more rows."""
        self._ending = False
        """Whether it is too late for another artifact."""
        self._not_taken: list[str] = []
        """Artifacts and media that W&B did not take, or not yet."""
        self.why = choice.why
        self.mode = choice.mode
        self._say = say
        self._steps_given, self._newest = 0, -1
        self._began = time.time()
        self._wants_checkpoints = recipe.track.checkpoints
        self._nodes = NodeRows(run)
        self._asked_nodes = time.monotonic()
        self.run: Any = self._online(recipe, alone) if choice.mode == "online" else None
        if self.mode == "offline":
            if self.why:
                say(f"W&B is offline: {self.why}; `headway sync {run.id}` uploads the run later")
            self.run = self._init(recipe, alone, mode="offline")
        if self.run is None:
            say(f"{self.problem}; `headway sync {run.id}` uploads the run from its metrics.jsonl later")
            return
        for pattern in ("train/*", "val/*", "test/*", "perf/*", "health/*", "system/*"):
            self.run.define_metric(pattern, step_metric="step")
        earlier = -1 if self.mode == "online" else last_step_on_disk(run.path / "wandb")
        self._next_step = max(int(self.run.starting_step), earlier + 1)
        self._rows = Worker[list[Row] | Work](f"wandb-{run.id}", self._take)
        # The SDK asks the server for these, and waits: no row stands behind them in a queue.
        self._artifacts = Worker[tuple[str, Log]](f"wandb-artifacts-{run.id}", self._take_artifact)
        if recipe.track.code and alone:
            self._give_artifact("code", log_code)
        if resumed_at is not None and self._next_step <= resumed_at:
            # What W&B did not get before a crash, or while it was not there.
            self.write([row for row in read_metrics(run.metrics) if self._next_step <= row.get("step", 0)])

    def _online(self, recipe: Recipe, alone: bool) -> Any:
        """Returns the SDK's run, online; None where a server has fallen silent since it was asked."""
        wandb = quiet_wandb()
        try:
            return self._init(recipe, alone, mode="online")
        except (wandb.errors.Error, TimeoutError) as error:
            why = (str(error).splitlines() or [type(error).__name__])[0][:200]
        # W&B's process holds on to a run that it could not begin, and lets no other have its id.
        if wandb.setup().most_recent_active_run is None:
            wandb.teardown()
            self.mode, self.why = "offline", why
        else:
            self.problem = f"W&B could not begin this run ({why})"
        return None

    def _init(self, recipe: Recipe, alone: bool, *, mode: Literal["online", "offline"]) -> Any:
        wandb = quiet_wandb()
        track = recipe.track
        # A run that goes on stays where it was, whatever the environment says now.
        before = next(filter(None, map(described, reversed(list_fragments(self.folder.path / "wandb")))), None)
        return wandb.init(
            dir=str(self.folder.path),
            id=self.folder.id,
            name=self.folder.id,
            project=track.project or (before.project if before else known_project(None)),
            entity=track.entity or (before.entity if before else None) or None,
            group=track.group,
            job_type=track.job_type,
            tags=track.tags or None,
            notes=track.notes,
            config=recipe.dotted(),
            mode=mode,
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=INIT_S,
                finish_timeout=FINISH_S,
                finish_timeout_raises=True,
                x_transaction_log_flush_interval=FLUSH_EVERY_S,
                # A run folder outside any repository is usual; the manifest records code and packages.
                disable_git=True,
                x_save_requirements=False,
                save_code=False,
                x_disable_meta=not alone,
                x_disable_stats=not alone,
            ),
        )

    # ---- while it trains -----------------------------------------------------------------------------

    def write(self, rows: list[Row]) -> None:
        """Hands on validations, tests and every so many training rows; costs the training next to nothing."""
        if self.run is None:
            return
        chosen = [row for row in rows if is_for_wandb(row, self.every)]
        if chosen:
            self._rows.put(chosen)

    def do(self, work: Work) -> None:
        """Has something done with the SDK's run, after the rows that were written so far."""
        if self.run is not None:
            self._rows.put(work)

    def alert(self, row: Row) -> None:
        """Sends a row of alerts.jsonl as an alert of W&B's."""
        self.do(lambda run: run.alert(row["title"], row["text"], level=row["level"]))

    def _take(self, item: list[Row] | Work) -> None:
        if self._broken:
            return
        try:
            if callable(item):
                item(self.run)
            else:
                for row in item:
                    self._log(row)
                self._log_nodes()
        except Exception as error:
            # The training goes on without W&B, and says so.
            self._broken = True
            self.problem = _process_failed(error)
            self._say(f"{self.problem}; metrics.jsonl has every row")

    def _give_artifact(self, what: str, log: Log) -> None:
        self._not_taken.append(what)
        self._artifacts.put((what, log))

    def _take_artifact(self, item: tuple[str, Log]) -> None:
        """Gives W&B an artifact: a server that is gone costs artifacts, and no row."""
        what, log = item
        if not (self._broken or self._ending):
            with contextlib.suppress(Exception):  # said at the end, with what else is not there
                log(self.run, self.folder)
                self._not_taken.remove(what)

    def _log(self, row: Row) -> None:
        step = int(row["step"])
        if step >= self._next_step:
            self.run.log({key: value for key, value in row.items() if key != "time"}, step=step)
            # Rows of one step are one row of W&B's.
            self._steps_given += step > self._newest
            self._newest = step

    def _log_nodes(self) -> None:
        """Hands on what the monitors of other nodes have written, now and then."""
        if self._newest < 0 or time.monotonic() - self._asked_nodes < EVERY_S:
            return
        self._asked_nodes = time.monotonic()
        if levels := self._nodes.newest():
            self.run.log(levels, step=self._newest)

    # ---- its end -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends the W&B run, and leaves in status.json where it is and whether it is whole."""
        if self.run is not None:
            self._end(sys.exc_info()[1])
        told = {"mode": self.mode, "why": self.why, "rows": self._steps_given, "problem": self.problem}
        self.folder.update_status(wandb={name: value for name, value in told.items() if value != ""})

    def _end(self, ending: BaseException | None) -> None:
        deadline = Deadline(self._patience())
        self.do(lambda run: run.summary.update(summary_of(self.folder, ending)))
        if not self._rows.close(deadline.left_s):
            self._broken = True
            self.problem = "W&B's own process takes no more rows"
        self._give_the_rest(deadline)
        fragment = Path(self.run.dir).parent
        try:
            exit_code = int(how_ended(ending) == "failed")
            within(deadline, lambda: self.run.finish(exit_code=exit_code))
        except TimeoutError:
            SERVERS.remember(known_address(), "its server did not take all of a run that ended before")
            self.problem = "W&B did not take all of the run in time"
        except Exception as error:
            self.problem = self.problem or _process_failed(error)
        else:
            if self.mode == "offline":
                self._count_back(fragment)
            else:
                self._ask_back(deadline)
        if self._not_taken:
            missing = f"the run's {' and '.join(self._not_taken)}"
            self.problem = f"{self.problem}; not there: {missing}" if self.problem else f"W&B did not take {missing}"
        if self.problem and self.mode == "online":
            self._say(f"{self.problem}; what is left is on disk: `headway sync {self.folder.id}` uploads it")
        elif self.mode == "online":
            mark_synced(fragment)

    def _ask_back(self, deadline: Deadline) -> None:
        """Asks the server for the newest row: the SDK does not tell when it was refused."""
        if self.problem:
            return
        run = self.run
        try:
            held = known_server().held(run.entity, run.project, run.id, timeout_s=max(1.0, deadline.left_s))
        except NoAnswer as problem:
            self.problem = str(problem)
            return
        if held is None or held.last_step < self._newest:
            step = "nothing" if held is None else f"rows up to step {held.last_step} of {self._newest}"
            self.problem = f"W&B's server has {step}"

    def _count_back(self, fragment: Path) -> None:
        """Reads the file back: W&B's own process does not tell when the disk was full."""
        found = once_written(fragment)
        if found.num_rows < self._steps_given:
            full = False
            with contextlib.suppress(OSError):
                full = shutil.disk_usage(fragment).free < _NEARLY_NOTHING
            self.problem = f"{fragment.name} has {found.num_rows:,} of {self._steps_given:,} rows"
            self._say(f"{self.problem}{': the disk is full' if full else ''}; metrics.jsonl has every row")

    def _patience(self) -> float:
        """Returns how many seconds this end may wait: next to none for a server that has let one down."""
        let_down = self.mode == "online" and SERVERS.recall(known_address()) is not None
        return AGAIN_S if let_down else END_S

    def _give_the_rest(self, deadline: Deadline) -> None:
        """Hands on what may have to wait for a server, once all rows are with W&B."""
        media = [row for row in read_index(self.folder) if row.get("time", 0) >= self._began]
        if media:
            self._give_artifact("media", lambda run, folder: give_media(run, folder, media))
        if self._wants_checkpoints:
            self._give_artifact("checkpoints", log_checkpoints)
        self._artifacts.close(max(0.0, deadline.left_s - FINISH_S))
        self._ending = True


def summary_of(run: RunFolder, ending: BaseException | None) -> dict[str, Any]:
    """Returns what a run's summary has besides the last values: how it ended, and the best checkpoint's metrics."""
    reason: dict[str, Any] = {} if ending is None else {"reason": str(ending)[:200]}
    return {"ended": how_ended(ending), **reason, **best_of(run)}


def how_ended(ending: BaseException | None) -> str:
    """Returns a word for it: in a table of a sweep's runs, what was stopped early is told from what is done."""
    return "done" if ending is None else "stopped" if isinstance(ending, Stopped | KeyboardInterrupt) else "failed"


def _process_failed(error: Exception) -> str:
    return f"W&B's own process failed ({type(error).__name__}: {error})"[:300]
