"""What runs, in each form: the Job, JobSet, TrainJob or RayJob of one task.

Source: https://kubernetes.io/docs/reference/kubernetes-api/workload-resources/job-v1/, https://jobset.sigs.k8s.io,
https://www.kubeflow.org/docs/components/trainer/, https://docs.ray.io/en/latest/cluster/kubernetes/.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING, Any

from headway.config.errors import EXIT_TRAINING_FAILED, EXIT_USER_ERROR, UserError
from headway.launch import _kubernetes_pod as pod
from headway.launch._kubernetes_pod import JOB_ANNOTATION, Tree, object_name, task_name
from headway.launch.base import Job, seconds

if TYPE_CHECKING:
    from headway.launch.kubernetes import Config

QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
RAY_RETRIES = 3
"""KubeRay cannot tell a preemption from a failure and tries again after either; so not often."""
_RAY_WORD = re.compile(r"[A-Za-z0-9_./:@%+=,-]+", re.ASCII)


def metadata(profile: Config, job: Job, task: int, *, queued: bool = True) -> Tree:
    labels = pod.labels(object_name(job.id), task)
    if profile.queue and queued:
        labels[QUEUE_LABEL] = profile.queue
    return {
        "name": task_name(job, task),
        "namespace": profile.namespace,
        "labels": labels,
        "annotations": {JOB_ANNOTATION: job.id, "headway-run": job.names[task]},
    }


def _command(profile: Config, job: Job, task: int) -> list[str]:
    return ["headway", *job.arguments(task, folder=pod.JOB_FOLDER, runs=profile.runs_in_pod)]


def _first_pod(profile: Config, host: str, subdomain: str) -> str | None:
    """Returns the whole name of the pod at which the nodes meet.

    Whole, since a pod finds its own whole name in /etc/hosts: the first pod knows that it is the first
    before the cluster's name service does.
    """
    if profile.nodes == 1:
        return None
    return f"{host}.{subdomain}.{profile.namespace}.svc.{profile.cluster_domain}"


def _failure_rules() -> Tree:
    """Returns what becomes of a job whose pod failed: rules are read in order, and the first that fits holds."""
    return {
        "rules": [
            # Preempted, drained or its node lost: counted, whatever its exit code says.
            {"action": "Count", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            # The input is wrong, or training failed: the next attempt would end the same.
            {
                "action": "FailJob",
                "onExitCodes": {
                    "containerName": pod.CONTAINER,
                    "operator": "In",
                    "values": [EXIT_USER_ERROR, EXIT_TRAINING_FAILED],
                },
            },
            # What is left (143, saved and stopped; a lost machine) is counted and tried again.
        ]
    }


def _template(profile: Config, job: Job, task: int, containers: list[Tree], **more: Any) -> Tree:
    name = object_name(job.id)
    return {
        "metadata": {"labels": pod.labels(name, task)},
        "spec": pod.pod_spec(profile, job, name, containers, **more),
    }


def job_form(profile: Config, job: Job, task: int) -> Tree:
    name = task_name(job, task)
    master = _first_pod(profile, f"{name}-0", name)
    container = pod.container(profile, job, _command(profile, job, task), master)
    more: Tree = {"subdomain": name} if profile.nodes > 1 else {}
    spec: Tree = {
        "completionMode": "Indexed",
        "completions": profile.nodes,
        "parallelism": profile.nodes,
        # Each pod is tried again this often; one that cannot be ends them all.
        "backoffLimitPerIndex": profile.max_requeues,
        "maxFailedIndexes": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": _failure_rules(),
        **_limits(profile),
        **_suspended(profile),
        "template": _template(profile, job, task, [container], restartPolicy="Never", **more),
    }
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": metadata(profile, job, task), "spec": spec}


def _limits(profile: Config, *, ttl: bool = True) -> Tree:
    limits: Tree = {}
    if profile.time_limit:
        limits["activeDeadlineSeconds"] = seconds(profile.time_limit)
    if ttl and profile.ttl_after_finished:
        limits["ttlSecondsAfterFinished"] = seconds(profile.ttl_after_finished)
    return limits


def _suspended(profile: Config) -> Tree:
    """Returns what makes a job wait until Kueue lets all of it start at once."""
    return {"suspend": True} if profile.queue else {}


def jobset_form(profile: Config, job: Job, task: int) -> Tree:
    name = task_name(job, task)
    container = pod.container(profile, job, _command(profile, job, task), _first_pod(profile, f"{name}-node-0-0", name))
    child: Tree = {
        "completionMode": "Indexed",
        "completions": profile.nodes,
        "parallelism": profile.nodes,
        # One lost pod ends the child, and the JobSet starts all pods over together.
        "backoffLimit": 0,
        "podReplacementPolicy": "Failed",
        "podFailurePolicy": _failure_rules(),
        **_limits(profile, ttl=False),
        "template": _template(profile, job, task, [container], restartPolicy="Never"),
    }
    labels = pod.labels(object_name(job.id), task)
    limits = {key: value for key, value in _limits(profile).items() if key == "ttlSecondsAfterFinished"}
    spec: Tree = {
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
        "failurePolicy": {
            "maxRestarts": profile.max_requeues,
            "rules": [
                {
                    "name": "not_again",
                    "action": "FailJobSet",
                    "onJobFailureReasons": ["PodFailurePolicy", "DeadlineExceeded"],
                }
            ],
        },
        **limits,
        **_suspended(profile),
        "replicatedJobs": [
            {"name": "node", "replicas": 1, "template": {"metadata": {"labels": labels}, "spec": child}}
        ],
    }
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": metadata(profile, job, task),
        "spec": spec,
    }


def trainjob_form(profile: Config, job: Job, task: int) -> Tree:
    name = task_name(job, task)
    command = [pod.literal(word) for word in _command(profile, job, task)]
    trainer: Tree = {
        "image": profile.image,
        "command": command[:1],
        "args": command[1:],
        "env": pod.environment(profile, job, _first_pod(profile, f"{name}-node-0-0", name)),
        "numNodes": profile.nodes,
        "numProcPerNode": profile.ranks,
        "resourcesPerNode": pod.resources(profile),
    }
    pods: Tree = {
        "terminationGracePeriodSeconds": profile.grace_s,
        "securityContext": pod.pod_security(),
        **pod.placement(profile),
        "containers": [
            {
                "name": "node",
                "securityContext": pod.container_security(),
                "volumeMounts": pod.volume_mounts(profile),
            }
        ],
        "volumes": pod.volumes(profile, job, object_name(job.id)),
    }
    template = {"metadata": {"labels": pod.labels(object_name(job.id), task)}, "spec": pods}
    nodes = {"name": "node", "template": {"spec": {"template": template}}}
    spec: Tree = {
        "runtimeRef": {"kind": "ClusterTrainingRuntime", "name": profile.runtime},
        **_limits(profile, ttl=False),
        **_suspended(profile),
        "trainer": {key: value for key, value in trainer.items() if value != {}},
        "runtimePatches": [
            {"manager": "headway", "trainingRuntimeSpec": {"template": {"spec": {"replicatedJobs": [nodes]}}}}
        ],
    }
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": metadata(profile, job, task),
        "spec": spec,
    }


def rayjob_form(profile: Config, job: Job, task: int) -> Tree:
    words = _command(profile, job, task)
    if job.verb == "sweep":
        words += ["--address", "auto"]
    for word in words:
        # It goes through the shells of KubeRay's submitter and of Ray's head.
        if not _RAY_WORD.fullmatch(word):
            raise UserError(f"{word[:60]!r}: a RayJob's command has letters, digits and . _ : / @ % + = , - alone")

    def template(role: str) -> Tree:
        made = _template(profile, job, task, [pod.container(profile, job, None, None, f"ray-{role}")])
        made["metadata"]["labels"]["headway-role"] = role
        return made

    submitter = template("submitter")
    # It waits and prints; the GPUs are the others'.
    submitter["spec"] |= {"restartPolicy": "Never", "volumes": []}
    first = submitter["spec"]["containers"][0]
    first["resources"] = {"requests": {"cpu": "100m", "memory": "500M"}, "limits": {"memory": "2G"}}
    del first["env"], first["volumeMounts"]
    cluster: Tree = {
        "rayVersion": profile.ray_version,
        # Without a token, anybody in the cluster could run a command here.
        "authOptions": {"mode": "token"},
        "headGroupSpec": {"rayStartParams": {}, "template": template("head")},
    }
    if profile.nodes > 1:
        size = profile.nodes - 1
        cluster["workerGroupSpecs"] = [
            {
                "groupName": "nodes",
                "replicas": size,
                "minReplicas": size,
                "maxReplicas": size,
                "rayStartParams": {},
                "template": template("worker"),
            }
        ]
    spec: Tree = {
        "entrypoint": shlex.join(words),
        "submissionMode": "K8sJobMode",
        "shutdownAfterJobFinishes": True,
        "backoffLimit": min(profile.max_requeues, RAY_RETRIES),
        "submitterConfig": {"backoffLimit": 0},
        **_limits(profile),
        **_suspended(profile),
        "submitterPodTemplate": submitter,
        "rayClusterSpec": cluster,
    }
    return {"apiVersion": "ray.io/v1", "kind": "RayJob", "metadata": metadata(profile, job, task), "spec": spec}
