"""One W&B run for a whole job, through W&B's own SDK: written on rank 0, kept in the run folder.

Without a key or a network the run is written offline, at once and whole; `wandb sync` uploads it later. Its
id is the run folder's, so a resumed run goes on as the same W&B run. Under `wandb agent` the agent's id, project and
entity take the place of ours, which is W&B's own doing.
"""

from __future__ import annotations

import os
import socket
import sys
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from headway.config.errors import Stopped, UserError

if TYPE_CHECKING:
    from headway.recipe import Recipe
    from headway.run import RunFolder

Mode = Literal["online", "offline", "disabled"]
CONNECT_TIMEOUT_S = 3.0
_SPARSE = ("val/", "test/")


def choose_mode(wanted: str) -> Mode:
    """Returns where metrics can go: `auto` is online with a key and a server that answers.

    The environment's WANDB_MODE, W&B's own switch, decides for `auto`.

    Raises:
        UserError: online was asked for and there is no key.
    """
    if wanted == "auto":
        wanted = os.environ.get("WANDB_MODE", "auto")
    if wanted == "disabled":
        return "disabled"
    if wanted == "offline":
        return "offline"
    key = _known_key()
    if wanted == "online":
        if not key:
            raise UserError("track.wandb: online, but there is no key; run `wandb login`, or use track.wandb=offline")
        return "online"
    return "online" if key and _answers(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")) else "offline"


def _known_key() -> str | None:
    """Returns the key that `wandb login` or the environment has left."""
    import netrc

    import wandb

    key = wandb.setup().settings.api_key
    if key:
        return str(key)

    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        found = netrc.netrc().authenticators(host)
    except (OSError, netrc.NetrcParseError):
        return None
    return found[2] if found else None


def _answers(url: str) -> bool:
    """Returns whether a server accepts a connection within a few seconds."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    try:
        with socket.create_connection((parts.hostname or "", port), timeout=CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False


class WandbSink:
    """Sends a run's rows to W&B.

    Args:
        run: the run folder; W&B's files go to its `wandb/`.
        recipe: becomes the run's config, with dotted names.
        mode: online or offline.
    """

    def __init__(self, run: RunFolder, recipe: Recipe, mode: Literal["online", "offline"]) -> None:
        import wandb

        track = recipe.track
        self.every = track.wandb_every
        self.run = wandb.init(
            dir=str(run.path),
            id=run.id,
            name=run.id,
            project=track.project,
            entity=track.entity,
            group=track.group,
            tags=track.tags,
            notes=track.notes,
            config=recipe.dotted(),
            mode=mode,
            resume="allow" if mode == "online" else None,
            reinit="create_new",
            settings=wandb.Settings(
                silent=True,
                console="off",
                init_timeout=20,
                # A run folder outside any repository is usual; the manifest records code and packages.
                disable_git=True,
                x_save_requirements=False,
                save_code=False,
                x_disable_meta=False,
            ),
        )
        for pattern in ("train/*", "val/*", "test/*", "perf/*", "health/*"):
            self.run.define_metric(pattern, step_metric="step")
        self.mode = mode
        self.folder = run.path / "wandb"

    def write(self, rows: list[dict[str, Any]]) -> None:
        """Sends validations, tests and every so many training rows."""
        for row in rows:
            sparse = any(name.startswith(_SPARSE) for name in row)
            if sparse or row["step"] % self.every == 0:
                self.run.log({key: value for key, value in row.items() if key != "time"})

    def close(self) -> None:
        """Ends the W&B run and says where it is."""
        ending = sys.exc_info()[1]
        # In a table of a sweep's runs, what was stopped early is told from what is done.
        how = "done" if ending is None else "stopped" if isinstance(ending, Stopped) else "failed"
        self.run.summary.update({"ended": how} if ending is None else {"ended": how, "reason": str(ending)[:200]})
        self.run.finish(exit_code=0 if ending is None or isinstance(ending, Stopped) else 1)
