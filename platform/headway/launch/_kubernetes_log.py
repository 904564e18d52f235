"""Reads what a job's pods print, through dropped connections and requeues."""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator

from headway.config.errors import UserError
from headway.launch._kubernetes_cluster import Cluster, NotThere
from headway.launch._kubernetes_pod import TASK_LABEL, Tree
from headway.launch._kubernetes_states import pod_index
from headway.launch.base import ENDED, JobStatus, Unreachable

POLL_S = 1.0
_DROPS = 20
"""Connections in a row that may be dropped before anything more was read."""


def read(
    cluster: Cluster, name: str, *, task: int, node: int, follow: bool, status: Callable[[], JobStatus]
) -> Iterator[str]:
    """Yields what the pod of a node printed, in pieces, from the start.

    Args:
        cluster: where the job is.
        name: of the job's objects.
        task: whose pod.
        node: index of the pod among the task's.
        follow: whether to go on until the task has ended.
        status: says where the task stands.

    Raises:
        UserError: there is no log (yet).
    """
    read_whole: set[str] = set()
    while True:
        # Asked before the pods: what one prints between the two is read.
        ended = status().state in ENDED
        pod = _newest(cluster.of_jobs("pod", [name]), task, node)
        if pod is not None and pod["metadata"]["uid"] not in read_whole and _has_printed(pod):
            yield from _read_pod(cluster, pod, follow=follow)
            read_whole.add(pod["metadata"]["uid"])
            if follow and not ended:
                continue
        if not follow or ended:
            if not read_whole:
                now = status()
                raise UserError(f"{name}: {now.state} ({now.reason or 'no pod'}); there is no log")
            return
        time.sleep(POLL_S)


def _read_pod(cluster: Cluster, pod: Tree, *, follow: bool) -> Iterator[str]:
    """Yields a pod's log; a connection that is dropped is made again, and what was read is passed over."""
    name = str(pod["metadata"]["name"])
    container = str(pod["spec"]["containers"][0]["name"])
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    seen_bytes = drops = 0
    while True:
        skip = seen_bytes
        try:
            for piece in cluster.pod_log(name, container, follow=follow):
                new = piece[skip:]
                skip = max(0, skip - len(piece))
                if new:
                    seen_bytes += len(new)
                    drops = 0
                    yield decoder.decode(new)
        except NotThere:
            break  # it is gone: requeued or deleted
        except Unreachable:
            drops += 1
            if drops > _DROPS:
                raise
            time.sleep(POLL_S)
            continue
        break
    rest = decoder.decode(b"", final=True)
    if rest:
        yield rest


def _newest(pods: list[Tree], task: int, node: int) -> Tree | None:
    """Returns the pod that stands for a node: of a RayJob the one that submits, which prints what the job prints."""
    mine = [pod for pod in pods if pod["metadata"]["labels"].get(TASK_LABEL) == str(task)]
    chosen = [pod for pod in mine if pod["metadata"]["labels"].get("headway-role", "submitter") == "submitter"]
    chosen = [pod for pod in chosen if pod_index(pod) == node]
    return max(chosen, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), default=None)


def _has_printed(pod: Tree) -> bool:
    """Returns whether the container was started; before, asking for its log is an error."""
    states = [one.get("state") or {} for one in (pod.get("status") or {}).get("containerStatuses") or []]
    return any("running" in state or "terminated" in state for state in states)
