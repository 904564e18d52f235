"""The pod of a Kubernetes job: what every form (Job, JobSet, TrainJob, RayJob) shares.

It runs without privileges, mounts no service account's token, and names secrets in place of holding them.

Source: https://kubernetes.io/docs/concepts/security/pod-security-standards/ (restricted).
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from headway.config.errors import UserError
from headway.launch.base import Job

if TYPE_CHECKING:
    from headway.launch.kubernetes import Config

Tree = dict[str, Any]

JOB_LABEL = "headway-job"
"""Label: the name of the job's objects, which is short where a job's id may be long."""
TASK_LABEL = "headway-task"
JOB_ANNOTATION = "headway-job-id"
"""Annotation: the job's id, whole."""
CONTAINER = "headway"
JOB_FOLDER = "/headway/job"
"""Where a pod sees what was shipped with its job."""
USER = 10001
"""The image's user (Dockerfile)."""
MASTER_PORT = 29500
_MAX_SHIPPED_BYTES = 1_000_000


def object_name(job_id: str) -> str:
    """Returns the name of a job's objects: the same each time, and no other job's.

    At most 40 characters of a DNS label, since controllers append to it (`-node-0-0`, a task's number).
    """
    start = re.sub(r"[^a-z0-9]+", "-", job_id.lower()).strip("-")[:28].strip("-")
    if not start[:1].isalpha():
        start = f"job-{start}".strip("-")
    return f"{start}-{hashlib.sha256(job_id.encode()).hexdigest()[:8]}"


def task_name(job: Job, task: int) -> str:
    """Returns the name of a task's object."""
    return f"{object_name(job.id)}-{task}" if job.is_array else object_name(job.id)


def literal(text: str) -> str:
    """Returns a text that Kubernetes hands on as it is: `$(NAME)` in a command or a variable is expanded by it.

    Source: https://kubernetes.io/docs/tasks/inject-data-application/define-interdependent-environment-variables/
    """
    return text.replace("$", "$$")


def labels(name: str, task: int) -> dict[str, str]:
    """Returns the labels by which a task's objects are found."""
    return {JOB_LABEL: name, TASK_LABEL: str(task)}


def environment(profile: Config, job: Job, master: str | None) -> list[Tree]:
    """Returns the variables of the container: values, and references to the Secret.

    Args:
        profile: where the job runs.
        job: what runs.
        master: name of the pod at which the nodes meet; None where there is one node.
    """
    values = {name: literal(value) for name, value in profile.variables(job, JOB_FOLDER).items()}
    if master is not None:
        values |= {"MASTER_ADDR": master, "MASTER_PORT": str(MASTER_PORT)}
    given: list[Tree] = [{"name": name, "value": value} for name, value in sorted(values.items())]
    return given + [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": profile.secret, "key": name}}}
        for name in sorted(profile.secrets)
    ]


def resources(profile: Config) -> Tree:
    """Returns what a pod asks for; it gets no more and no less."""
    amounts: dict[str, str] = {}
    if profile.cpus_per_node:
        amounts["cpu"] = str(profile.cpus_per_node)
    if profile.memory_gb:
        amounts["memory"] = f"{profile.memory_gb:g}G"
    if profile.gpus_per_node:
        amounts[profile.gpu_resource] = str(profile.gpus_per_node)
    return {"requests": dict(amounts), "limits": dict(amounts)} if amounts else {}


def volumes(profile: Config, job: Job, name: str) -> list[Tree]:
    """Returns the volumes of a pod: what was shipped, shared memory, and claims."""
    claims = [profile.runs_volume, *profile.mounts]
    return [
        {"name": "job", "configMap": {"name": name, "items": _items(job)}},
        {"name": "shm", "emptyDir": {"medium": "Memory", "sizeLimit": f"{profile.shared_memory_gb:g}G"}},
        *(
            {"name": f"claim-{index}", "persistentVolumeClaim": {"claimName": claim.claim}}
            for index, claim in enumerate(claims)
        ),
    ]


def volume_mounts(profile: Config) -> list[Tree]:
    """Returns where the container sees its volumes."""
    mounts: list[Tree] = [
        {"name": "job", "mountPath": JOB_FOLDER, "readOnly": True},
        {"name": "shm", "mountPath": "/dev/shm"},
    ]
    for index, claim in enumerate([profile.runs_volume, *profile.mounts]):
        mount: Tree = {"name": f"claim-{index}", "mountPath": literal(claim.path)}
        if claim.read_only:
            mount["readOnly"] = True
        mounts.append(mount)
    return mounts


def pod_security() -> Tree:
    """Returns the rights of a pod: those of one user who is not root."""
    return {
        "runAsNonRoot": True,
        "runAsUser": USER,
        "runAsGroup": USER,
        "fsGroup": USER,
        "fsGroupChangePolicy": "OnRootMismatch",
        "seccompProfile": {"type": "RuntimeDefault"},
    }


def container_security() -> Tree:
    """Returns the rights of a container."""
    return {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}


def container(profile: Config, job: Job, command: list[str] | None, master: str | None, name: str = CONTAINER) -> Tree:
    """Returns the container; without a command it is what the form's controller starts in it."""
    built: Tree = {"name": name, "image": profile.image}
    if command is not None:
        built["command"] = [literal(word) for word in command]
    built |= {
        "env": environment(profile, job, master),
        "resources": resources(profile),
        "securityContext": container_security(),
        "volumeMounts": volume_mounts(profile),
    }
    return {key: value for key, value in built.items() if value != {}}


def pod_spec(profile: Config, job: Job, name: str, containers: list[Tree], **more: Any) -> Tree:
    """Returns the pod's specification with its place, its rights and its volumes."""
    spec: Tree = {
        **more,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": profile.grace_s,
        "securityContext": pod_security(),
        **placement(profile),
        "containers": containers,
        "volumes": volumes(profile, job, name),
    }
    if profile.priority_class:
        spec["priorityClassName"] = profile.priority_class
    return spec


def placement(profile: Config) -> Tree:
    """Returns on whose behalf and on which nodes a pod runs; what the profile does not say is left out."""
    given: Tree = {
        "serviceAccountName": profile.service_account,
        "imagePullSecrets": [{"name": secret} for secret in profile.image_pull_secrets],
        "nodeSelector": dict(sorted(profile.node_selector.items())),
        "tolerations": [toleration.model_dump(exclude_none=True) for toleration in profile.tolerations],
    }
    return {key: value for key, value in given.items() if value}


def config_map(job: Job, name: str, metadata: Tree) -> Tree:
    """Returns the ConfigMap with the recipe and what else was shipped.

    Raises:
        UserError: it is more than Kubernetes takes.
    """
    data = {_key(path): text for path, text in sorted(job.files.items())}
    size = sum(len(text.encode()) for text in data.values())
    if size > _MAX_SHIPPED_BYTES:
        raise UserError(
            f"the files of the job are {size:,} bytes, and a ConfigMap holds {_MAX_SHIPPED_BYTES:,}; commit your "
            "changes (they travel as a patch), or put modules of your own into the image"
        )
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": data}


def _items(job: Job) -> list[Tree]:
    return [{"key": _key(path), "path": path} for path in sorted(job.files)]


def _key(path: str) -> str:
    """Returns a ConfigMap's key for a file: a key has no slash, so `/` is `..` (which no file's name has twice).

    Raises:
        UserError: a name that a ConfigMap cannot hold.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*", path, re.ASCII) or ".." in path:
        raise UserError(f"{path!r}: a file that travels to Kubernetes is named with letters, digits, dots and _ -")
    return path.replace("/", "..")
