"""One W&B run for a whole job, through W&B's own SDK: written on rank 0, kept in the run folder.

Without a key or a server that answers the run is written offline, at once and whole; `headway sync` uploads it later.
Its id is the run folder's, so a resumed run goes on as the same W&B run. Under `wandb agent` the agent's id, project
and entity take the place of ours, which is W&B's own doing.

W&B's own step is the optimizer step. It only ever grows, so that a row which is made again after a resume has its
place taken, and one that a crash kept from W&B is taken from metrics.jsonl.
"""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headway.config.errors import Stopped, UserError
from headway.run import read_metrics
from headway.track.artifacts import log_checkpoints, log_code
from headway.track.fragments import last_step_on_disk, mark_synced, once_written
from headway.track.media import give_media, read_index
from headway.track.node_monitor import EVERY_S, NodeRows
from headway.track.patience import within
from headway.track.upload_copies import is_for_wandb
from headway.track.wandb_server import NoAnswer, WandbServer, known_address, known_key, known_server, quiet_wandb

if TYPE_CHECKING:
    from headway.recipe import Recipe
    from headway.run import RunFolder

Mode = Literal["online", "offline", "disabled"]
Row = dict[str, Any]
Work = Callable[[Any], None]
"""Something to do with the SDK's run, in its turn among the rows."""

PROBE_S = 4.0
INIT_S = 5.0
"""With the probe, what a server that has fallen silent may cost a run's start."""
FINISH_S = 30.0
"""How long a run's end waits for what is not uploaded yet; it is on the disk already."""
DRAIN_S = 60.0
FLUSH_EVERY_S = 5.0
_LATE_S = 5.0
"""How much later than it was told to W&B's process may give up before it is ended."""
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
    if wanted == "auto":
        wanted = os.environ.get("WANDB_MODE", "auto")
    if wanted == "disabled":
        return Choice("disabled")
    if wanted in ("offline", "dryrun"):
        return Choice("offline")
    key = known_key()
    if not key:
        if wanted == "online":
            raise UserError("track.wandb: online, but there is no key; run `wandb login`, or use track.wandb=offline")
        return Choice("offline", "there is no key")
    problem = WandbServer(known_address(), key).why_not(within_s=PROBE_S)
    return Choice("online") if problem is None else Choice("offline", problem)


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
        self._takes_artifacts = True
        self.why = choice.why
        self.mode = choice.mode
        self._say = say
        self._queue: queue.SimpleQueue[list[Row] | Work | None] = queue.SimpleQueue()
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
        if recipe.track.code and alone:
            self._log_artifact(log_code)
        self._thread = threading.Thread(target=self._feed, name=f"wandb-{run.id}", daemon=True)
        self._thread.start()
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
        return wandb.init(
            dir=str(self.folder.path),
            id=self.folder.id,
            name=self.folder.id,
            project=track.project,
            entity=track.entity,
            group=track.group,
            job_type=track.job_type,
            tags=track.tags,
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
            self._queue.put(chosen)

    def do(self, work: Work) -> None:
        """Has something done with the SDK's run, after the rows that were written so far."""
        if self.run is not None:
            self._queue.put(work)

    def alert(self, row: Row) -> None:
        """Sends a row of alerts.jsonl as an alert of W&B's."""
        self.do(lambda run: run.alert(row["title"], row["text"], level=row["level"]))

    def _feed(self) -> None:
        """Gives W&B what was written, until there is no more."""
        while (item := self._queue.get()) is not None:
            if self._broken:
                continue
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
                self.problem = f"W&B's own process failed ({type(error).__name__}: {error})"[:300]
                self._say(f"{self.problem}; metrics.jsonl has every row")

    def _log_artifact(self, log: Callable[[Any, RunFolder], None]) -> None:
        """Has an artifact logged. The SDK asks the server for it: one that is gone costs artifacts, and no row."""

        def work(run: Any) -> None:
            if not self._takes_artifacts:
                return
            try:
                log(run, self.folder)
            except Exception as error:
                self._takes_artifacts = False
                self.problem = f"W&B took no artifact ({type(error).__name__}: {error})"[:300]

        self.do(work)

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
        # In a table of a sweep's runs, what was stopped early is told from what is done.
        how = "done" if ending is None else "stopped" if isinstance(ending, Stopped) else "failed"
        summary: dict[str, Any] = {"ended": how} if ending is None else {"ended": how, "reason": str(ending)[:200]}
        best = self.folder.status().get("best") or {}
        if best:
            summary |= {"best/step": best["step"]}
            summary |= {f"best/{name}": value for name, value in best.get("metrics", {}).items()}
        media = [row for row in read_index(self.folder) if row.get("time", 0) >= self._began]
        self.do(lambda run: give_media(run, self.folder, media))
        if self._wants_checkpoints:
            self._log_artifact(log_checkpoints)
        self.do(lambda run: run.summary.update(summary))
        self._queue.put(None)
        self._thread.join(DRAIN_S)
        if self._thread.is_alive():
            self._broken = True
            self.problem = f"W&B did not take all rows within {DRAIN_S:.0f} s"
            self._say(f"{self.problem}; metrics.jsonl has every row")
        self._finish(0 if ending is None or isinstance(ending, Stopped) else 1)

    def _finish(self, exit_code: int) -> None:
        fragment = Path(self.run.dir).parent
        try:
            within(FINISH_S + _LATE_S, lambda: self.run.finish(exit_code=exit_code))
        except TimeoutError:
            self.problem = f"W&B did not take all within {FINISH_S:.0f} s"
            self._say(f"{self.problem}; what is left is on disk: `headway sync {self.folder.id}` uploads it")
            return
        except Exception as error:
            self.problem = self.problem or f"W&B's own process failed ({type(error).__name__}: {error})"[:300]
            self._say(f"{self.problem}; what is left is on disk: `headway sync {self.folder.id}` uploads it")
            return
        if self._broken:
            return
        if self.mode == "offline":
            self._count_back(fragment)
        else:
            self._ask_back(fragment)

    def _ask_back(self, fragment: Path) -> None:
        """Asks the server for the newest row: the SDK does not tell when it was refused."""
        try:
            held = known_server().held(str(self.run.entity), str(self.run.project), str(self.run.id))
        except NoAnswer as problem:
            self.problem = str(problem)
        else:
            if held is None or held.last_step < self._newest:
                step = "nothing" if held is None else f"rows up to step {held.last_step} of {self._newest}"
                self.problem = f"W&B's server has {step}"
        if self.problem:
            self._say(f"{self.problem}; what is left is on disk: `headway sync {self.folder.id}` uploads it")
        else:
            mark_synced(fragment)

    def _count_back(self, fragment: Path) -> None:
        """Reads the file back: W&B's own process does not tell when the disk was full."""
        found = once_written(fragment)
        if found.num_rows < self._steps_given:
            with contextlib.suppress(OSError):
                full = shutil.disk_usage(fragment).free < _NEARLY_NOTHING
            self.problem = f"{fragment.name} has {found.num_rows:,} of {self._steps_given:,} rows"
            self._say(f"{self.problem}{': the disk is full' if full else ''}; metrics.jsonl has every row")
