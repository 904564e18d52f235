"""Kubernetes: manifests against the real schemas, and the client against a fake API server."""

from __future__ import annotations

import gzip
import importlib.util
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.launch._kubernetes_pod import object_name
from headway.launch.base import Job, Sent, Unreachable
from headway.launch.kubernetes import Config

pytest.importorskip("kubernetes", reason="the Kubernetes client is not installed (pip install 'headway[kubernetes]')")

HERE = Path(__file__).parent
_spec = importlib.util.spec_from_file_location("fake_kubernetes", HERE / "fake_kubernetes.py")
assert _spec is not None
assert _spec.loader is not None
fake = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake)

GPUS: dict[str, Any] = {
    "kind": "kubernetes", "image": "registry.example.org/headway:1", "namespace": "training", "nodes": 2,
    "gpus_per_node": 8, "cpus_per_node": 64, "memory_gb": 500, "time_limit": "12h",
    "runs_volume": {"claim": "runs", "path": "/runs"}, "secret": "headway", "secrets": ["WANDB_API_KEY"],
    "tolerations": [{"key": "nvidia.com/gpu"}], "node_selector": {"gpu": "h100"}, "queue": "team",
}  # fmt: skip
FILES = {"recipe.yaml": "name: gpt\nmodel:\n  kind: gpt\n", "code.json": "{}\n"}
FIT = Job("gpt-1122-101500-ab12cd", "fit", ("gpt",), group="gpt", files=FILES)
SWEEP = Job("search-1122-101500-ab12cd", "sweep", ("search",), group="search", workers=1, files=FILES)
FORMS = [("job", FIT), ("jobset", FIT), ("trainjob", FIT), ("rayjob", SWEEP)]
CRDS = {"JobSet": "jobset.x-k8s.io_jobsets", "TrainJob": "trainer.kubeflow.org_trainjobs", "RayJob": "ray.io_rayjobs"}


def profile(**changes: Any) -> Config:
    whole = {**GPUS, **({"ray_version": "2.60.0"} if changes.get("form") == "rayjob" else {}), **changes}
    return validate_section(Config, whole, path="profile")


def manifests(config: Config, job: Job) -> str:
    return config.render(job, Path("/x"), Path("/y")).files["kubernetes.yaml"]


def strict(schema: Any) -> Any:
    """Returns a custom resource's schema as JSON Schema that takes no field it does not name, as the server does."""
    if not isinstance(schema, dict):
        return schema
    made = {
        key: value for key, value in schema.items() if not key.startswith("x-") and key not in ("format", "default")
    }
    if "properties" in schema:
        made["properties"] = {name: strict(inner) for name, inner in schema["properties"].items()}
        open_ended = "x-kubernetes-preserve-unknown-fields", "x-kubernetes-embedded-resource"
        if "additionalProperties" not in schema and not any(schema.get(mark) for mark in open_ended):
            made["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            made[key] = strict(schema[key])
    if schema.get("x-kubernetes-int-or-string"):
        made["type"] = ["integer", "string"]
    return made


def problems(tree: dict[str, Any]) -> list[str]:
    """Returns what the real schema of a manifest's kind finds wrong with it."""
    if tree["kind"] not in CRDS:
        validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
        try:
            validate.validate(tree, validate.latest_version(), strict=True)
        except validate.ValidationError as error:
            return [str(error)]
        return []
    text = gzip.decompress((HERE / "schemas" / f"{CRDS[tree['kind']]}.yaml.gz").read_bytes())
    crd = yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    version = tree["apiVersion"].partition("/")[2]
    (schema,) = [one["schema"]["openAPIV3Schema"] for one in crd["spec"]["versions"] if one["name"] == version]
    whole = strict(schema)
    whole["properties"]["metadata"] = {"type": "object"}
    found = jsonschema.Draft202012Validator(whole).iter_errors(tree)
    return [f"{'/'.join(map(str, error.absolute_path))}: {error.message[:200]}" for error in found]


@pytest.mark.parametrize(("form", "job"), FORMS, ids=[form for form, _ in FORMS])
def test_manifests_are_those_that_were_read_and_fit_the_real_schemas(form: str, job: Job) -> None:
    text = manifests(profile(form=form), job)
    assert text == (HERE / "golden" / f"kubernetes-{form}.yaml").read_text()
    trees = list(yaml.safe_load_all(text))
    assert [problem for tree in trees for problem in problems(tree)] == []


def test_a_planted_mistake_is_found() -> None:
    for form, job in FORMS:
        tree = next(iter(yaml.safe_load_all(manifests(profile(form=form), job))))
        tree["spec"]["replicsa"] = 3
        assert problems(tree), form


@pytest.mark.quick
def test_the_first_pod_is_where_nodes_meet_and_secrets_are_references() -> None:
    tree = next(iter(yaml.safe_load_all(manifests(profile(), FIT))))
    spec = tree["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    variables = {one["name"]: one for one in container["env"]}
    name = object_name(FIT.id)
    assert variables["MASTER_ADDR"]["value"] == f"{name}-0.{name}.training.svc.cluster.local"
    assert variables["WANDB_API_KEY"]["valueFrom"] == {"secretKeyRef": {"name": "headway", "key": "WANDB_API_KEY"}}
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert spec["securityContext"]["runAsNonRoot"]
    assert spec["automountServiceAccountToken"] is False
    assert tree["spec"]["backoffLimitPerIndex"] == 20
    assert container["command"][:3] == ["headway", "fit", "/headway/job/recipe.yaml"]


@pytest.mark.quick
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"namespace": "a\nb"}, "namespace: should be a Kubernetes name"),
        ({"namespace": "$(id)"}, "namespace: should be a Kubernetes name"),
        ({"image": "!!python/object x"}, "image: should be of letters"),
        ({"runs_volume": {"claim": "runs", "path": "/runs/../etc"}}, "should be a whole path"),
        ({"node_selector": {"a": "b c"}}, "should be at most 63 letters"),
        ({"secret": None}, "secrets: needs secret"),
        ({"runs": "/elsewhere"}, "runs would be lost"),
        ({"form": "pod"}, "form: "),
        ({"ray_version": "2"}, "ray_version: goes with form rayjob"),
    ],
)
def test_a_hostile_or_impossible_profile_is_refused(changes, message: str) -> None:
    with pytest.raises(UserError) as refused:
        profile(**changes)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.quick
def test_hostile_values_stay_values() -> None:
    evil = "$(WANDB_API_KEY) !!python/object: {a: &b [*b]} # '\" "
    job = Job("x-1", "fit", ("x",), files={"recipe.yaml": f"{evil}\n---\nkind: Pod\n"})
    trees = list(yaml.safe_load_all(manifests(profile(environment={"EVIL": evil}, form="job"), job)))
    assert [tree["kind"] for tree in trees] == ["Job", "Service", "ConfigMap"]
    assert trees[2]["data"]["recipe.yaml"] == f"{evil}\n---\nkind: Pod\n"
    variables = trees[0]["spec"]["template"]["spec"]["containers"][0]["env"]
    # Kubernetes writes $$ as $ and would expand $(NAME).
    assert {"name": "EVIL", "value": evil.replace("$", "$$")} in variables


@pytest.mark.quick
def test_no_secret_stands_in_a_manifest(monkeypatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "canary-key")
    for form, job in FORMS:
        assert "canary-key" not in manifests(profile(form=form), job)


@pytest.fixture
def cluster(tmp_path: Path):
    with fake.fake_cluster() as running:
        running.config = str(running.kubeconfig(tmp_path / "kubeconfig"))
        yield running


def sent(config: Config, job: Job, folder: Path) -> Sent:
    rendering = config.render(job, folder, Path("/y"))
    for name, text in rendering.files.items():
        (folder / name).write_text(text)
    return Sent(job, config.send(job, rendering, folder), folder)


def test_a_job_is_created_once_looked_at_read_and_deleted(cluster, tmp_path) -> None:
    config = profile(kubeconfig=cluster.config, queue=None)
    assert config.find(FIT, tmp_path) is None
    one = sent(config, FIT, tmp_path)
    assert cluster.kinds() == ["ConfigMap", "Job", "Service"]
    sent(config, FIT, tmp_path)
    assert cluster.kinds() == ["ConfigMap", "Job", "Service"]
    assert config.find(FIT, tmp_path) == one.native_id
    owner = cluster.objects["services", one.native_id]["metadata"]["ownerReferences"][0]
    assert owner["kind"] == "Job"

    (status,) = config.statuses([one])[FIT.id]
    assert (status.state, status.reason) == ("pending", "its pods are not there yet")
    job = cluster.objects["jobs", one.native_id]
    labels = job["spec"]["template"]["metadata"]["labels"]
    for index in (0, 1):
        pod = {
            "kind": "Pod",
            "metadata": {
                "name": f"pod-{index}", "uid": f"u{index}", "creationTimestamp": "2026-11-22T10:00:01Z",
                "labels": {**labels, "batch.kubernetes.io/job-completion-index": str(index)},
            },
            "spec": {"nodeName": f"gpu-{index}", "containers": [{"name": "headway"}]},
            "status": {"phase": "Running", "containerStatuses": [{"state": {"running": {}}}]},
        }  # fmt: skip
        cluster.objects["pods", f"pod-{index}"] = pod
    cluster.logs["pod-0"] = "step 1\nstep 2\n"
    (status,) = config.statuses([one])[FIT.id]
    assert (status.state, status.where) == ("running", ("gpu-0", "gpu-1"))
    assert "".join(config.log(one, task=0, follow=False)) == "step 1\nstep 2\n"

    ended = {"exitCode": 3, "finishedAt": "2026-11-22T10:05:00Z"}
    cluster.objects["pods", "pod-0"]["status"] = {
        "phase": "Failed", "containerStatuses": [{"state": {"terminated": ended}}],
    }  # fmt: skip
    job["status"] = {"conditions": [{"type": "Failed", "status": "True", "reason": "PodFailurePolicy"}]}
    (status,) = config.statuses([one])[FIT.id]
    assert (status.state, status.exit_code) == ("failed", 3)
    assert status.reason == "exit code 3: training failed, see the log"

    config.cancel([one])
    assert cluster.kinds() == ["Pod", "Pod"]
    (status,) = config.statuses([one])[FIT.id]
    assert status.state == "lost"


def test_a_waiting_pod_says_why(cluster, tmp_path) -> None:
    config = profile(kubeconfig=cluster.config, queue=None, nodes=1)
    one = sent(config, FIT, tmp_path)
    labels = cluster.objects["jobs", one.native_id]["spec"]["template"]["metadata"]["labels"]
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/4 nodes have GPUs"}
    cluster.objects["pods", "p"] = {
        "kind": "Pod", "metadata": {"name": "p", "uid": "u", "labels": labels}, "spec": {},
        "status": {"phase": "Pending", "conditions": [condition]},
    }  # fmt: skip
    (status,) = config.statuses([one])[FIT.id]
    assert (status.state, status.reason) == ("pending", "Unschedulable: 0/4 nodes have GPUs")


@pytest.mark.parametrize("trouble", [[429], [500, "drop", 503], ["drop"]])
def test_a_busy_server_and_dropped_connections_lose_and_double_nothing(cluster, tmp_path, trouble) -> None:
    config = profile(kubeconfig=cluster.config)
    cluster.next_answers = list(trouble)
    sent(config, FIT, tmp_path)
    assert cluster.kinds() == ["ConfigMap", "Job", "Service"]


@pytest.mark.parametrize(
    ("answers", "error", "message"),
    [
        ([403], UserError, "you may not do this"),
        ([422], UserError, "refused: as the test wants it"),
        ([200, 403, 200, 200], UserError, "you may not do this"),
    ],
)
def test_what_the_server_refuses_is_one_line_and_nothing_is_left(cluster, tmp_path, answers, error, message) -> None:
    config = profile(kubeconfig=cluster.config)
    cluster.next_answers = list(answers)
    with pytest.raises(error) as refused:
        sent(config, FIT, tmp_path)
    assert not isinstance(refused.value, Unreachable)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert cluster.kinds() == []


def test_a_wrong_token_and_another_jobs_name_are_told(cluster, tmp_path) -> None:
    wrong = profile(kubeconfig=str(cluster.kubeconfig(tmp_path / "wrong", token="nonsense")))
    with pytest.raises(UserError, match="it does not know you"):
        sent(wrong, FIT, tmp_path)
    config = profile(kubeconfig=cluster.config)
    one = sent(config, FIT, tmp_path)
    cluster.objects["jobs", one.native_id]["metadata"]["annotations"]["headway-job-id"] = "another"
    with pytest.raises(UserError, match="is not of job"):
        sent(config, FIT, tmp_path)
    with pytest.raises(UserError, match="kubeconfig: /nowhere"):
        sent(profile(kubeconfig="/nowhere"), FIT, tmp_path)
