"""Ray Jobs: a headway command as the driver of a job on a running Ray cluster.

A sweep spreads its trials over the cluster; a fit trains on one of its nodes. The job API runs anyone's command, so a
cluster that asks for no token is refused unless the profile says `insecure`.

Source: Ray 2.60, "Ray Jobs Python SDK" and "Token authentication".
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar
from urllib.parse import urlsplit

from headway.config.errors import UserError
from headway.launch._logs import POLL_S
from headway.launch.base import Job, JobStatus, Launcher, OneLine, Rendering, Sent, State, Unreachable, meaning

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

T = TypeVar("T")

REQUEST = "ray-job.json"
_GIGABYTE = 10**9
_TALKATIVE = ("ray.dashboard.modules.dashboard_sdk", "ray._private.runtime_env.packaging")
"""They tell of every upload."""
_STATES: dict[str, State] = {
    "PENDING": "pending",
    "RUNNING": "running",
    "SUCCEEDED": "done",
    "STOPPED": "cancelled",
    "FAILED": "failed",
}


class Config(Launcher):
    """Runs jobs on a Ray cluster."""

    PLACE: ClassVar[tuple[str, ...]] = ("address", "token_file", "insecure")

    address: OneLine
    """The cluster's dashboard, such as http://head:8265."""
    token_file: OneLine = "~/.ray/auth_token"
    """File of the cluster's token, readable by you alone; RAY_AUTH_TOKEN comes first where it is set."""
    insecure: bool = False
    """Whether a cluster that asks for no token will do: whoever reaches it can run commands on it."""

    def check(self, job: Job) -> None:
        """Refuses what Ray Jobs cannot do, a cluster that is not there, and one that asks for no token."""
        if job.verb == "fit" and self.nodes > 1:
            raise UserError(
                f"nodes: {self.nodes}, but a fit on Ray trains on one node; use slurm or kubernetes, or submit a sweep"
            )
        if self.secrets:
            raise UserError(
                f"secrets: {self.secrets[0]} would stand in Ray's list of jobs; set it where the cluster's nodes start"
            )
        if self.time_limit is not None:
            raise UserError(f"time_limit: {self.time_limit}, but Ray Jobs have none; leave it out")
        if self.runs is None:
            raise UserError("runs is missing: the folder of run folders that every node of the Ray cluster sees")
        if not self.address.startswith(("http://", "https://")):
            raise UserError(f"address: {self.address} should be the dashboard's, such as http://head:8265")
        self._client()
        if not self.insecure and not self._asks_for_a_token():
            raise UserError(
                f"address: {self.address} asks for no token, and whoever reaches it can run commands there; start it "
                "with RAY_AUTH_MODE=token, or say --insecure"
            )

    def render(self, job: Job, folder: Path, runs: Path) -> Rendering:
        """Returns what each task asks of the job API."""
        requests = [self._request(job, task, str(self.runs or runs)) for task in range(len(job.names))]
        text = json.dumps(requests, indent=2, sort_keys=True) + "\n"
        return Rendering({REQUEST: text}, ("ray", "job", "submit", "--address", self.address, "--working-dir", "."))

    def send(self, job: Job, rendering: Rendering, folder: Path) -> str:
        """Submits each task with the job's folder as its working directory."""
        client = self._client()
        for request in json.loads(rendering.files[REQUEST]):
            request["runtime_env"] |= {"working_dir": str(folder)}
            try:
                self._ask(client.submit_job, **request)
            except UserError as error:
                if "already exists" not in str(error):
                    raise
        return job.id

    def find(self, job: Job, folder: Path) -> str | None:
        """Returns the job's id where its last task has arrived; where only some have, sending again adds the others."""
        known = {details.submission_id for details in self._ask(self._client().list_jobs)}
        return job.id if _submission(job, len(job.names) - 1) in known else None

    def statuses(self, sent: Sequence[Sent]) -> dict[str, tuple[JobStatus, ...]]:
        """Returns what the job API says."""
        known = {details.submission_id: details for details in self._ask(self._client().list_jobs)}
        return {
            one.job.id: tuple(_status(known.get(_submission(one.job, task))) for task in range(len(one.job.names)))
            for one in sent
        }

    def cancel(self, sent: Sequence[Sent]) -> None:
        """Stops jobs; runs save within `grace_s`."""
        client = self._client()
        for one in sent:
            for task in range(len(one.job.names)):
                self._ask(client.stop_job, _submission(one.job, task))

    def log(self, sent: Sent, *, task: int, follow: bool) -> Iterator[str]:
        """Yields what the driver printed."""
        client, name, shown = self._client(), _submission(sent.job, task), 0
        while True:
            over = not follow or self.statuses([sent])[sent.job.id][task].state not in ("pending", "running")
            text = self._ask(client.get_job_logs, name)
            yield text[shown:]
            shown = len(text)
            if over:
                return
            time.sleep(POLL_S)

    def _request(self, job: Job, task: int, runs: str) -> dict[str, Any]:
        arguments = job.arguments(task, folder=".", runs=runs)
        everywhere = ["--address", "auto"] if job.verb == "sweep" else []
        gpus = self.gpus_per_node if job.verb == "fit" else 0
        cpus = (self.cpus_per_node or 1) if job.verb == "fit" else 1
        variables = {**self.variables(job, "."), "RAY_JOB_STOP_WAIT_TIME_S": str(self.grace_s)}
        return {
            "submission_id": _submission(job, task),
            "entrypoint": shlex.join(["headway", *arguments, *everywhere]),
            "entrypoint_num_cpus": cpus,
            "entrypoint_num_gpus": gpus,
            "entrypoint_memory": int(self.memory_gb * _GIGABYTE) if self.memory_gb else None,
            "runtime_env": {"env_vars": variables},
            "metadata": {"headway": job.group or job.id},
        }

    def _token(self) -> str | None:
        """Returns the cluster's token.

        Raises:
            UserError: others can read the file.
        """
        given = os.environ.get("RAY_AUTH_TOKEN")
        if given:
            return given
        path = Path(self.token_file).expanduser()
        if not path.is_file():
            return None
        if path.stat().st_mode & 0o077:
            raise UserError(f"token_file: {path} can be read by others; chmod 600 {path}")
        return path.read_text().strip()

    def _client(self) -> JobSubmissionClient:
        try:
            from ray.job_submission import JobSubmissionClient
        except ImportError:
            raise UserError("kind: ray needs Ray's job client; pip install 'ray[default]'") from None
        for name in _TALKATIVE:
            logging.getLogger(name).setLevel(logging.ERROR)
        token = self._token()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return self._ask(JobSubmissionClient, self.address, headers=headers)

    def _ask(self, question: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """Returns the cluster's answer.

        Raises:
            UserError: it refuses; a wrong token, an impossible job.
            Unreachable: it does not answer.
        """
        try:
            return question(*arguments, **options)
        except (ConnectionError, OSError) as error:
            raise Unreachable(f"address: {self.address} does not answer ({_short(error)}); is it up?") from None
        except Exception as error:
            if type(error).__name__ == "AuthenticationError":
                raise UserError(
                    f"token_file: {self.address} wants another token than that of {self.token_file}; get the cluster's"
                ) from None
            raise UserError(f"address: {self.address} refuses: {_short(error)}") from None

    def _asks_for_a_token(self) -> bool:
        import requests

        answer = self._ask(requests.get, f"{self.address}/api/jobs/", timeout=30)
        return answer.status_code in (401, 403)


def _submission(job: Job, task: int) -> str:
    """Returns the id of a task at the job API; a second submission of it is refused there."""
    return f"{job.id}-{task}" if job.is_array else job.id


def _short(error: Exception) -> str:
    """Returns what an error says, of a traceback that the server sends its last line."""
    lines = [line.strip() for line in str(error).replace("\\n", "\n").splitlines() if line.strip(" \"'}.")]
    if not lines:
        return type(error).__name__
    return (lines[-1] if "Traceback" in lines[0] else lines[0])[:300]


def _status(details: Any) -> JobStatus:
    if details is None:
        return JobStatus("lost", "the Ray cluster knows nothing of it; it may have been started anew")
    state = _STATES.get(str(details.status.value), "pending")
    host = urlsplit(details.driver_agent_http_address or "").hostname
    where = (host,) if host else ()
    moment = details.end_time or details.start_time
    since = moment / 1000 if moment else None
    if state == "failed":
        code = details.driver_exit_code
        said = (details.message or "no reason given").strip().splitlines()
        # Of a crash Ray's message ends with the log's last lines; the exit code says it better.
        why = meaning(int(code)) if code is not None else said[0][:200]
        return JobStatus("failed", why, where, since, None if code is None else int(code))
    reason = (details.message or "") if state == "pending" else ""
    return JobStatus(state, reason.strip().split("\n", 1)[0], where, since, 0 if state == "done" else None)
