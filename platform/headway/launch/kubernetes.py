"""Kubernetes: a Job, a JobSet, a Kubeflow TrainJob or a KubeRay RayJob, sent through the official client.

`cluster/kubernetes/README.md` says what a cluster needs for each form. Sending goes by names that follow from the
job's id, so that what is sent twice is there once.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, Field, PositiveFloat, model_validator

from headway.config.errors import UserError
from headway.config.section import Section
from headway.launch import _kubernetes_log
from headway.launch._kubernetes_cluster import Cluster
from headway.launch._kubernetes_manifests import FILE, documents, dump
from headway.launch._kubernetes_pod import object_name
from headway.launch._kubernetes_states import read_statuses
from headway.launch.base import Job, JobStatus, Launcher, OneLine, Plain, Rendering, Sent, Time, Unreachable

Form = Literal["job", "jobset", "trainjob", "rayjob"]
_DNS = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)
_LABEL_KEY = re.compile(
    r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?", re.ASCII
)
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?", re.ASCII)


def _dns(text: str) -> str:
    if not _DNS.fullmatch(text):
        raise ValueError(f"should be a Kubernetes name: small letters, digits, dots and dashes (got {text[:60]!r})")
    return text


def _label_key(text: str) -> str:
    if not _LABEL_KEY.fullmatch(text):
        raise ValueError(f"should be a label such as node.kubernetes.io/instance-type (got {text[:60]!r})")
    return text


def _label_value(text: str) -> str:
    if not _LABEL_VALUE.fullmatch(text):
        raise ValueError(f"should be at most 63 letters, digits and . _ - (got {text[:60]!r})")
    return text


def _absolute(text: str) -> str:
    if not re.fullmatch(r"(/[A-Za-z0-9_][A-Za-z0-9_.+=@-]*)+", text, re.ASCII) or ".." in text:
        raise ValueError(
            f"should be a whole path such as /runs, of letters, digits and . _ + = @ - (got {text[:60]!r})"
        )
    return text


Dns = Annotated[str, AfterValidator(_dns)]
"""A name of a Kubernetes object."""
LabelKey = Annotated[str, AfterValidator(_label_key)]
LabelValue = Annotated[str, AfterValidator(_label_value)]
PodPath = Annotated[str, AfterValidator(_absolute)]


class Volume(Section):
    """A persistent volume claim that pods see as a folder."""

    claim: Dns
    """Name of the PersistentVolumeClaim; with several nodes it is ReadWriteMany."""
    path: PodPath
    """Where pods see it."""
    read_only: bool = False
    """Whether pods only read it."""


class Toleration(Section):
    """A taint of nodes that pods put up with."""

    key: LabelKey | None = None
    """The taint's key; every taint when absent."""
    operator: Literal["Exists", "Equal"] = "Exists"
    """Whether any value will do, or `value` alone."""
    value: LabelValue | None = None
    """The taint's value, with operator Equal."""
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = None
    """The taint's effect; any when absent."""


class Config(Launcher):
    """Runs jobs on Kubernetes."""

    PLACE: ClassVar[tuple[str, ...]] = ("kubeconfig", "context", "namespace", "form")

    form: Form = "job"
    """What is created: job, jobset, trainjob (Kubeflow) or rayjob (KubeRay, for sweeps on several nodes)."""
    image: Plain
    """Container image with headway in it (see the Dockerfile)."""
    namespace: Dns = "default"
    """Namespace of everything that is created."""
    context: OneLine | None = None
    """Context of the kubeconfig; its current one when absent."""
    kubeconfig: OneLine | None = None
    """The kubeconfig file; what kubectl reads when absent."""
    runs_volume: Volume
    """Where runs are kept: the claim, and where pods see it."""
    mounts: list[Volume] = Field(default_factory=list)
    """More claims, such as one with the data."""
    secret: Dns | None = None
    """Kubernetes Secret whose keys are the names under `secrets`."""
    service_account: Dns | None = None
    """Service account of the pods; its token is not mounted."""
    image_pull_secrets: list[Dns] = Field(default_factory=list)
    """Secrets for the image's registry."""
    node_selector: dict[LabelKey, LabelValue] = Field(default_factory=dict)
    """Labels that nodes must have."""
    tolerations: list[Toleration] = Field(default_factory=list)
    """Taints of nodes that pods put up with."""
    gpu_resource: LabelKey = "nvidia.com/gpu"
    """What the cluster calls a GPU."""
    shared_memory_gb: PositiveFloat = 8.0
    """Size of /dev/shm, in GB, where the processes of a pod exchange tensors; a part of its memory."""
    queue: Dns | None = None
    """Kueue's local queue: all pods of a job start together, when it is their turn."""
    priority_class: Dns | None = None
    """PriorityClass of the pods."""
    ttl_after_finished: Time | None = None
    """How long after its end a job's objects and logs are kept; until they are deleted when absent."""
    runtime: Dns = "headway"
    """With trainjob: the ClusterTrainingRuntime (cluster/kubernetes/manifests has one)."""
    ray_version: Plain | None = None
    """With rayjob: the version of Ray in the image."""
    cluster_domain: Dns = "cluster.local"
    """Domain of the cluster's names."""

    @model_validator(mode="after")
    def _whole(self) -> Config:
        if self.secrets and self.secret is None:
            raise ValueError("secrets: needs secret, the Kubernetes Secret whose keys they are")
        if (self.form == "rayjob") != (self.ray_version is not None):
            raise ValueError("ray_version: goes with form rayjob; set both or neither")
        for setting in ("priority_class", "ttl_after_finished"):
            if self.form == "trainjob" and getattr(self, setting) is not None:
                raise ValueError(f"{setting}: a TrainJob has no such thing; set it in the runtime ({self.runtime})")
        if both := sorted(set(self.secrets) & set(self.environment)):
            raise ValueError(f"secrets: {both[0]} stands under environment too; leave it in one of them")
        paths = [volume.path for volume in (self.runs_volume, *self.mounts)]
        taken = sorted(path for path in paths if paths.count(path) > 1 or path in ("/headway/job", "/dev/shm"))
        if taken:
            raise ValueError(f"mounts: {taken[0]} is mounted twice; give it another path")
        if self.runs is not None:
            _absolute(self.runs)
            if not PurePosixPath(self.runs).is_relative_to(self.runs_volume.path):
                raise ValueError(
                    f"runs: {self.runs} is not in runs_volume ({self.runs_volume.path}); runs would be lost"
                )
        return self

    @property
    def runs_in_pod(self) -> str:
        """Returns the folder of run folders as a pod sees it."""
        return self.runs or self.runs_volume.path

    def check(self, job: Job) -> None:
        """Refuses what a form cannot run."""
        if self.form == "rayjob" and job.verb == "fit" and self.nodes > 1:
            raise UserError(f"form: rayjob, but a fit on {self.nodes} nodes is one command a node; use jobset or job")
        if self.form != "rayjob" and job.workers:
            raise UserError(f"form: {self.form}, but a sweep on {self.nodes} nodes needs Ray; use form rayjob")

    def render(self, job: Job, folder: Path, runs: Path) -> Rendering:
        """Returns the manifests, as one file."""
        where = ["--namespace", self.namespace]
        where += [f"--context={self.context}"] if self.context else []
        where += [f"--kubeconfig={self.kubeconfig}"] if self.kubeconfig else []
        return Rendering({FILE: dump(documents(self, job))}, ("kubectl", "create", *where, "-f", FILE))

    def send(self, job: Job, rendering: Rendering, folder: Path) -> str:
        """Creates the objects; those that are there already are this job's."""
        self._cluster.create(rendering.files[FILE], job.id)
        return object_name(job.id)

    def find(self, job: Job, folder: Path) -> str | None:
        """Returns the job's name where anything that runs was created, once the rest is created too."""
        try:
            if not self._cluster.of_jobs(self.form, [object_name(job.id)]):
                return None
            self._cluster.create((folder / FILE).read_text(), job.id)
        except OSError as error:
            raise Unreachable(f"{folder / FILE}: cannot be read ({error.strerror})") from None
        except UserError as error:
            raise Unreachable(str(error)) from None
        return object_name(job.id)

    def statuses(self, sent: Sequence[Sent]) -> dict[str, tuple[JobStatus, ...]]:
        """Returns what the cluster says of the jobs and their pods: two questions for all of them."""
        names = [one.native_id for one in sent]
        try:
            objects, pods = self._cluster.of_jobs(self.form, names), self._cluster.of_jobs("pod", names)
        except UserError as error:
            raise Unreachable(str(error)) from None
        return read_statuses(self.form, [one.job for one in sent], objects, pods)

    def cancel(self, sent: Sequence[Sent]) -> None:
        """Deletes everything with the jobs' label; pods are told to save and have grace_s for it."""
        try:
            self._cluster.delete((self.form, "service", "configmap"), [one.native_id for one in sent])
        except UserError as error:
            raise Unreachable(str(error)) from None

    def log(self, sent: Sent, *, task: int, follow: bool, node: int = 0) -> Iterator[str]:
        """Yields what the pod of a node printed; after a requeue, what the pod in its place prints."""

        def status() -> JobStatus:
            return self.statuses([sent])[sent.job.id][task]

        return _kubernetes_log.read(self._cluster, sent.native_id, task=task, node=node, follow=follow, status=status)

    @property
    def _cluster(self) -> Cluster:
        return Cluster(self.namespace, self.kubeconfig, self.context)
