"""The documents of a Kubernetes job, and the YAML file they make.

    job       batch/v1 Job, indexed: one `headway fit` a pod, and a headless Service where there are several
    jobset    JobSet: the same, and all pods start over together when one is lost
    trainjob  Kubeflow TrainJob v2: the same, on a runtime of the cluster's own
    rayjob    KubeRay RayJob: a Ray cluster of the job's own, for sweeps

A task of an array (a seed) is an object of its own: each waits, is requeued and ends by itself. All of a job's
objects carry one label, and share one ConfigMap with the recipe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

from headway.launch import _kubernetes_forms as forms
from headway.launch import _kubernetes_pod as pod
from headway.launch._kubernetes_pod import JOB_ANNOTATION, JOB_LABEL, TASK_LABEL, Tree, object_name
from headway.launch.base import Job

if TYPE_CHECKING:
    from headway.launch.kubernetes import Config

FILE = "kubernetes.yaml"
_HEADER = "# What `headway submit` sends to Kubernetes; `kubectl create -f` of this file would send the same.\n"


def documents(profile: Config, job: Job) -> list[Tree]:
    """Returns the objects of a job; what runs comes first, since it owns the rest.

    Raises:
        UserError: too much is shipped.
    """
    build = _FORMS[profile.form]
    tasks = range(len(job.names))
    services = [_service(profile, job, task) for task in tasks if profile.form == "job" and profile.nodes > 1]
    shared: Tree = {"labels": {JOB_LABEL: object_name(job.id)}, "annotations": {JOB_ANNOTATION: job.id}}
    return [
        *(build(profile, job, task) for task in tasks),
        *services,
        pod.config_map(job, object_name(job.id), {"namespace": profile.namespace, **shared}),
    ]


def dump(trees: list[Tree]) -> str:
    """Returns the documents as one YAML file; a text of several lines is written as lines."""
    return _HEADER + yaml.dump_all(
        trees, Dumper=_Dumper, sort_keys=False, explicit_start=True, default_flow_style=False, width=1000
    )


class _Dumper(yaml.SafeDumper):
    """Writes no anchors: a person reads each document alone."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _represent_text)


def _service(profile: Config, job: Job, task: int) -> Tree:
    """Returns the headless Service that gives pods their names, before they are ready too."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": forms.metadata(profile, job, task, queued=False),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {JOB_LABEL: object_name(job.id), TASK_LABEL: str(task)},
            "ports": [{"name": "rendezvous", "port": pod.MASTER_PORT}],
        },
    }


_FORMS = {
    "job": forms.job_form,
    "jobset": forms.jobset_form,
    "trainjob": forms.trainjob_form,
    "rayjob": forms.rayjob_form,
}
