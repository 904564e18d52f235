"""What Kubernetes says of a job and its pods, in headway's vocabulary."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from headway.launch._kubernetes_pod import JOB_LABEL, TASK_LABEL, Tree, object_name, task_name
from headway.launch.base import Job, JobStatus, meaning

_INDEX = "batch.kubernetes.io/job-completion-index"
_FAILURES = "batch.kubernetes.io/job-index-failure-count"
_EXIT_CODE = re.compile(r"exit code (\d+)")
_EXPLAINED = {
    "DeadlineExceeded": "reached its time_limit, the position saved; `headway jobs retry` goes on",
    "OOMKilled": "out of memory (OOMKilled); raise memory_gb, or lower the batch",
}


def read_statuses(
    form: str, jobs: Sequence[Job], objects: Sequence[Tree], pods: Sequence[Tree]
) -> dict[str, tuple[JobStatus, ...]]:
    """Returns where jobs stand, by job id, one status a task."""
    by_name = {str(one["metadata"]["name"]): one for one in objects}
    read = _read_rayjob if form == "rayjob" else _read_job
    found: dict[str, tuple[JobStatus, ...]] = {}
    for job in jobs:
        statuses = []
        for task in range(len(job.names)):
            name = task_name(job, task)
            mine = [pod for pod in pods if _belongs(pod, job, task)]
            tree = by_name.get(name)
            statuses.append(_GONE if tree is None else read(tree, mine))
        found[job.id] = tuple(statuses)
    return found


_GONE = JobStatus("lost", "is gone from the cluster: deleted, or past ttl_after_finished; its run folder says more")


def pod_index(pod: Tree) -> int:
    """Returns which node of its task a pod is."""
    metadata = pod["metadata"]
    given = (metadata.get("labels") or {}).get(_INDEX) or (metadata.get("annotations") or {}).get(_INDEX)
    return int(given) if given and str(given).isdigit() else 0


def _belongs(pod: Tree, job: Job, task: int) -> bool:
    labels = pod["metadata"].get("labels") or {}
    return labels.get(JOB_LABEL) == object_name(job.id) and labels.get(TASK_LABEL) == str(task)


def _read_job(tree: Tree, pods: Sequence[Tree]) -> JobStatus:
    """Returns where a Job, a JobSet or a TrainJob stands; they say it alike."""
    status, spec = tree.get("status") or {}, tree["spec"]
    true = {one["type"]: one for one in status.get("conditions") or [] if one.get("status") == "True"}
    newest = _newest_of_each(pods)
    where = tuple(sorted({node for pod in newest if (node := pod["spec"].get("nodeName"))}))
    requeues = _requeues(tree, pods)
    done = next((true[kind] for kind in ("Complete", "Completed") if kind in true), None)
    if done is not None:
        return JobStatus("done", "", where, _moment(done.get("lastTransitionTime")), 0, requeues)
    if "Failed" in true:
        code, reason = _why_failed(true["Failed"], pods)
        return JobStatus("failed", reason, where, _moment(true["Failed"].get("lastTransitionTime")), code, requeues)
    if tree["metadata"].get("deletionTimestamp"):
        since = _moment(tree["metadata"]["deletionTimestamp"])
        return JobStatus("running", "is deleted: saves and ends", where, since, None, requeues)
    if "Suspended" in true or spec.get("suspend"):
        return JobStatus("pending", _suspended(tree), (), _since(tree), None, requeues)
    return _read_pods(newest, pods, _num_pods(tree), where, requeues, _since(tree))


def _read_pods(
    newest: Sequence[Tree],
    pods: Sequence[Tree],
    num_pods: int,
    where: tuple[str, ...],
    requeues: int,
    since: float | None,
) -> JobStatus:
    """Returns where a job that may run stands, by its pods."""
    running = [pod for pod in newest if (pod.get("status") or {}).get("phase") == "Running"]
    over = [pod for pod in newest if (pod.get("status") or {}).get("phase") == "Succeeded"]
    if (running or over) and len(running) + len(over) >= num_pods:
        started = [moment for pod in running if (moment := _moment(pod["status"].get("startTime"))) is not None]
        return JobStatus("running", "", where, max(started, default=since), None, requeues)
    lost = [pod for pod in pods if _disrupted(pod)]
    failed = [pod for pod in newest if (pod.get("status") or {}).get("phase") == "Failed"]
    if failed and any(_disrupted(pod) for pod in failed):
        return JobStatus("preempted", _disruption(lost[-1]), where, since, None, requeues)
    waiting = [reason for pod in newest if (reason := _why_waiting(pod))]
    reason = waiting[0] if waiting else "its pods are not there yet"
    if running:
        reason = f"{len(running)} of {num_pods} pods run; {reason}"
    if requeues or failed:
        last = _disruption(lost[-1]) if lost else _last_end(pods)
        return JobStatus("requeued", f"{last}; {reason}" if last else reason, where, since, None, requeues)
    return JobStatus("pending", reason, where, since, None, requeues)


def _read_rayjob(tree: Tree, pods: Sequence[Tree]) -> JobStatus:
    """Returns where a RayJob stands."""
    status = tree.get("status") or {}
    phase, job_status = str(status.get("jobDeploymentStatus") or ""), str(status.get("jobStatus") or "")
    where = tuple(sorted({node for pod in pods if (node := pod["spec"].get("nodeName")) and _role(pod) != "submitter"}))
    requeues = int(status.get("failed") or 0)
    message = " ".join(str(status.get("message") or "").split())[:300]
    ended = _moment(status.get("endTime"))
    if phase == "Complete" and job_status == "SUCCEEDED":
        return JobStatus("done", "", where, ended, 0, requeues)
    if phase == "Complete" and job_status == "STOPPED":
        return JobStatus("cancelled", message, where, ended, None, requeues)
    if phase == "Failed" or (job_status == "FAILED" and phase != "Retrying"):
        found = _EXIT_CODE.search(message)
        code = int(found.group(1)) if found else None
        reason = _EXPLAINED.get(str(status.get("reason")), "")
        killed, explained = _why_failed({}, [pod for pod in pods if _role(pod) != "submitter"])
        if killed == 137:
            reason = reason or explained
        reason = reason or (meaning(code) if code is not None else message or str(status.get("reason") or ""))
        return JobStatus("failed", reason, where, ended, code, max(0, requeues - 1))
    if tree["metadata"].get("deletionTimestamp"):
        return JobStatus("running", "is deleted", where, None, None, requeues)
    if tree["spec"].get("suspend") or phase in ("Suspended", "Suspending"):
        return JobStatus("pending", _suspended(tree), (), _since(tree), None, requeues)
    if phase == "Running" and job_status == "RUNNING":
        return JobStatus("running", "", where, _moment(status.get("startTime")), None, requeues)
    waiting = [reason for pod in pods if (reason := _why_waiting(pod))]
    reason = waiting[0] if waiting else "the Ray cluster starts" if phase else "KubeRay has not seen it yet"
    return JobStatus("requeued" if requeues else "pending", reason, where, _since(tree), None, requeues)


def _role(pod: Tree) -> str:
    return str((pod["metadata"].get("labels") or {}).get("headway-role", ""))


def _suspended(tree: Tree) -> str:
    queue = (tree["metadata"].get("labels") or {}).get("kueue.x-k8s.io/queue-name")
    return f"waits for its turn in Kueue's queue {queue}" if queue else "is suspended"


def _requeues(tree: Tree, pods: Sequence[Tree]) -> int:
    """Returns how often the job was started over: a JobSet counts it, a Job's pods carry it."""
    if tree["kind"] == "JobSet":
        return int((tree.get("status") or {}).get("restarts") or 0)
    carried = [(pod["metadata"].get("annotations") or {}).get(_FAILURES) for pod in pods]
    counts = [int(count) for count in carried if count and str(count).isdigit()]
    failed_of: dict[int, int] = {}
    for pod in pods:
        if (pod.get("status") or {}).get("phase") == "Failed":
            failed_of[pod_index(pod)] = failed_of.get(pod_index(pod), 0) + 1
    failed = int((tree.get("status") or {}).get("failed") or 0)
    return max([*counts, *failed_of.values(), -(-failed // _num_pods(tree)) if not pods else 0], default=0)


def _num_pods(tree: Tree) -> int:
    spec = tree["spec"]
    if tree["kind"] == "JobSet":
        spec = spec["replicatedJobs"][0]["template"]["spec"]
    return int(spec.get("completions") or (spec.get("trainer") or {}).get("numNodes") or 1)


def _newest_of_each(pods: Sequence[Tree]) -> list[Tree]:
    """Returns the pods that stand for nodes now: the last one of each."""
    newest: dict[int, Tree] = {}
    for pod in sorted(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp"))):
        newest[pod_index(pod)] = pod
    return [newest[index] for index in sorted(newest)]


def _why_waiting(pod: Tree) -> str:
    """Returns why a pod does not run; "" where it does, or has."""
    status = pod.get("status") or {}
    if status.get("phase") not in (None, "Pending"):
        return ""
    for one in [*(status.get("initContainerStatuses") or []), *(status.get("containerStatuses") or [])]:
        waiting = (one.get("state") or {}).get("waiting")
        if waiting and waiting.get("reason") not in (None, "PodInitializing"):
            return _said(waiting)
    for condition in status.get("conditions") or []:
        if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
            return _said(condition)
    return "its pod starts"


def _said(given: Any) -> str:
    message = " ".join(str(given.get("message") or "").split())[:200]
    return f"{given.get('reason')}: {message}" if message else str(given.get("reason"))


def _disrupted(pod: Tree) -> bool:
    conditions = (pod.get("status") or {}).get("conditions") or []
    return any(one.get("type") == "DisruptionTarget" and one.get("status") == "True" for one in conditions)


def _disruption(pod: Tree) -> str:
    for one in pod["status"]["conditions"]:
        if one.get("type") == "DisruptionTarget":
            return _said(one)
    return ""


def _terminations(pods: Sequence[Tree]) -> list[Tree]:
    """Returns how containers ended, the last first."""
    ended = [
        terminated
        for pod in pods
        for one in (pod.get("status") or {}).get("containerStatuses") or []
        if (terminated := (one.get("state") or {}).get("terminated"))
    ]
    return sorted(ended, key=lambda end: str(end.get("finishedAt")), reverse=True)


def _last_end(pods: Sequence[Tree]) -> str:
    ends = [end for end in _terminations(pods) if end.get("exitCode")]
    return meaning(int(ends[0]["exitCode"])) if ends else ""


def _why_failed(condition: Tree, pods: Sequence[Tree]) -> tuple[int | None, str]:
    """Returns the exit code that stands for a failed job, and why it failed."""
    ends = [end for end in _terminations(pods) if end.get("exitCode")]
    # A pod that ran out of memory, or said what is wrong, explains why the others failed.
    killed = next((end for end in ends if end.get("reason") == "OOMKilled"), None)
    told = next((end for end in ends if end["exitCode"] in (2, 3)), None)
    chosen = killed or told or (ends[0] if ends else None)
    code = int(chosen["exitCode"]) if chosen else None
    reason = str(condition.get("reason") or "")
    if killed is not None:
        return code, _EXPLAINED["OOMKilled"]
    if reason == "DeadlineExceeded" or "DeadlineExceeded" in str(condition.get("message")):
        return code, _EXPLAINED["DeadlineExceeded"]
    if code == 143:
        return code, f"{meaning(code)}; stopped more often than max_requeues, `headway jobs retry` goes on"
    return code, meaning(code) if code is not None else _said(condition)


def _since(tree: Tree) -> float | None:
    status = tree.get("status") or {}
    return _moment(status.get("startTime")) or _moment(tree["metadata"].get("creationTimestamp"))


def _moment(text: Any) -> float | None:
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None
