"""What is asked of a W&B server besides what its SDK asks: does it answer, and what does it have of a run.

The SDK waits for a server for 90 seconds and tries for longer; each question here has a few. Imports no torch.
"""

from __future__ import annotations

import base64
import json
import netrc
import os
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from headway.config.errors import UserError

ANSWER_TIMEOUT_S = 3.0
CLOUD = "https://api.wandb.ai"
_VIEWER = "query Viewer { viewer { id entity username } }"
_RUN = """query RunResumeStatus($project: String, $entity: String, $name: String!) {
  model(name: $project, entityName: $entity) {
    bucket(name: $name, missingOk: true) { id historyLineCount historyTail eventsTail }
  }
}"""


@dataclass(frozen=True)
class Held:
    """What a server has of a run."""

    lines: int
    """Rows of its history."""
    last_step: int
    """W&B's own `_step` of the newest row; -1 where there is none."""
    last_event: float
    """When the newest row of the system monitor was made, in seconds since 1970; 0 where there is none."""


class NoAnswer(Exception):
    """A server that does not answer, or not with what was asked for; says why in a few words."""


class Silent(NoAnswer):
    """A server that let the question wait in vain."""


class WandbServer:
    """A W&B server.

    Args:
        url: its address.
        key: the user's.
    """

    def __init__(self, url: str, key: str) -> None:
        self.url = url.rstrip("/")
        self.key = key
        self.is_silent = False
        """Whether it let the last `why_not` wait in vain."""

    def why_not(self, *, within_s: float) -> str | None:
        """Returns why nothing can be sent to it; None where it answers and knows the key.

        A network without a name server holds a question up whatever its timeout: a thread asks.
        """
        said: list[NoAnswer | None] = []

        def ask() -> None:
            try:
                self.entity()
                said.append(None)
            except NoAnswer as problem:
                said.append(problem)

        asking = threading.Thread(target=ask, name="wandb-probe", daemon=True)
        asking.start()
        asking.join(within_s)
        problem = said[0] if said else Silent(f"{self.url} does not answer within {within_s:.0f} s")
        self.is_silent = isinstance(problem, Silent)
        return None if problem is None else str(problem)

    def entity(self) -> str:
        """Returns the user or team that the key's runs go to when none is named.

        Raises:
            NoAnswer: it does not answer, or does not know the key.
        """
        viewer = self._ask("Viewer", _VIEWER, {}).get("viewer")
        if not viewer:
            raise NoAnswer(f"{self.url} does not know the key")
        return str(viewer.get("entity") or viewer.get("username") or "")

    def held(self, entity: str | None, project: str, run_id: str, *, timeout_s: float = 20.0) -> Held | None:
        """Returns what it has of a run; None where it has nothing.

        Raises:
            NoAnswer: it does not answer.
        """
        asked = {"project": project, "entity": entity or self.entity(), "name": run_id}
        bucket = (self._ask("RunResumeStatus", _RUN, asked, timeout_s=timeout_s).get("model") or {}).get("bucket")
        if not bucket:
            return None
        history, events = _tail(bucket.get("historyTail")), _tail(bucket.get("eventsTail"))
        return Held(
            lines=int(bucket.get("historyLineCount") or 0),
            last_step=int(history.get("_step", -1)),
            last_event=float(events.get("_timestamp", 0.0)),
        )

    def _ask(
        self, operation: str, query: str, variables: dict[str, Any], *, timeout_s: float = ANSWER_TIMEOUT_S
    ) -> dict[str, Any]:
        body = json.dumps({"operationName": operation, "query": query, "variables": variables}).encode()
        login = base64.b64encode(f"api:{self.key}".encode()).decode()
        headers = {"Content-Type": "application/json", "Authorization": f"Basic {login}", "User-Agent": "headway"}
        request = urllib.request.Request(f"{self.url}/graphql", data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as response:
                answer = json.loads(response.read())
        except urllib.error.HTTPError as error:
            error.close()
            if error.code in (401, 403):
                raise NoAnswer(f"{self.url} refuses the key") from None
            raise NoAnswer(f"{self.url} answers with {error.code} {error.reason}") from None
        except TimeoutError:
            raise Silent(f"{self.url} does not answer within {timeout_s:.0f} s") from None
        except (OSError, ValueError) as error:
            reason = getattr(error, "reason", error)
            raise NoAnswer(f"{self.url} cannot be reached ({reason})") from None
        found = answer.get("data") if isinstance(answer, dict) else None
        if not isinstance(found, dict):
            raise NoAnswer(f"{self.url} does not speak W&B's language")
        return found


def _tail(text: str | None) -> dict[str, Any]:
    """Returns the newest line of a stream, which comes as JSON in JSON."""
    lines = json.loads(text or "[]")
    row = json.loads(lines[-1]) if lines else {}
    return row if isinstance(row, dict) else {}


def known_address() -> str:
    """Returns the server that the environment or `wandb login --host` names; W&B's own otherwise."""
    return os.environ.get("WANDB_BASE_URL") or str(quiet_wandb().setup().settings.base_url or CLOUD)


def known_mode() -> str | None:
    """Returns what the environment's WANDB_MODE, W&B's own switch, says; None where it says nothing.

    Raises:
        UserError: it says something else than W&B knows.
    """
    said = os.environ.get("WANDB_MODE") or None
    if said is None or said in ("online", "offline", "disabled"):
        return said
    if said in ("run", "dryrun"):
        return {"run": "online", "dryrun": "offline"}[said]
    raise UserError(f"WANDB_MODE: {said!r} should be online, offline or disabled")


def known_project(named: str | None) -> str:
    """Returns the project that runs go to: the recipe's, or the environment's."""
    return named or os.environ.get("WANDB_PROJECT") or "headway"


def known_key() -> str | None:
    """Returns the key that `wandb login` or the environment has left."""
    key = os.environ.get("WANDB_API_KEY") or quiet_wandb().setup().settings.api_key
    if key:
        return str(key)
    try:
        found = netrc.netrc().authenticators(urlsplit(known_address()).hostname or "")
    except (OSError, netrc.NetrcParseError):
        return None
    return found[2] if found else None


def known_server() -> WandbServer:
    """Returns the server that runs go to.

    Raises:
        UserError: there is no key for it.
    """
    key = known_key()
    if not key:
        raise UserError("there is no W&B key; run `wandb login`, or set WANDB_API_KEY")
    return WandbServer(known_address(), key)


def quiet_wandb() -> Any:
    """Returns the SDK, which from then on tells neither of its logins nor of its own telemetry."""
    import logging

    os.environ.setdefault("WANDB_SILENT", "true")
    if known_mode() is None:
        os.environ.pop("WANDB_MODE", None)  # set to nothing, which the SDK takes for a mode
    import wandb

    logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)
    return wandb
