"""Talks to a Kubernetes API server through the official client: what may be asked again is, and no error is two lines.

Every request here may be repeated: names follow from the job's id, so a second create finds the first (409).

Source: https://kubernetes.io/docs/reference/using-api/api-concepts/
"""

from __future__ import annotations

import email.utils
import json
import random
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from headway.config.errors import UserError
from headway.launch._kubernetes_pod import JOB_ANNOTATION, JOB_LABEL, Tree
from headway.launch.base import Unreachable

PATHS = {
    "job": "/apis/batch/v1/namespaces/{namespace}/jobs",
    "jobset": "/apis/jobset.x-k8s.io/v1alpha2/namespaces/{namespace}/jobsets",
    "trainjob": "/apis/trainer.kubeflow.org/v1alpha1/namespaces/{namespace}/trainjobs",
    "rayjob": "/apis/ray.io/v1/namespaces/{namespace}/rayjobs",
    "service": "/api/v1/namespaces/{namespace}/services",
    "configmap": "/api/v1/namespaces/{namespace}/configmaps",
    "pod": "/api/v1/namespaces/{namespace}/pods",
}
_NEEDS = {"jobset": "JobSet", "trainjob": "the Kubeflow trainer", "rayjob": "KubeRay"}
_TRIES = 5
_WAIT_AT_MOST_S = 30.0
_ANSWERS_WITHIN_S = (10, 60)
"""Seconds to connect, and to wait for an answer."""
_FOLLOW_WITHIN_S = (10, 300)
_AT_ONCE = 50
"""Jobs that are asked for in one request: a request's line has an end."""
_NOT_NOW = (429, 500, 502, 503, 504)


@dataclass(frozen=True)
class Cluster:
    """One namespace of one cluster, as one kubeconfig sees it."""

    namespace: str
    kubeconfig: str | None = None
    context: str | None = None

    def create(self, manifests: str, job_id: str) -> None:
        """Creates a job's objects; what runs owns the rest, which is deleted with it.

        Raises:
            UserError: the cluster refuses one, or has one of that name that is not this job's; nothing is left.
            Unreachable: it is not known what was created.
        """
        made: list[Tree] = []
        owners: list[Tree] = []
        try:
            for tree in yaml.safe_load_all(manifests):
                kind = str(tree["kind"]).lower()
                if kind in ("service", "configmap"):
                    tree["metadata"]["ownerReferences"] = owners
                created = self._create(kind, tree, job_id)
                made.append(tree)
                if kind not in ("service", "configmap"):
                    owners.append(_owner(created))
        except Unreachable:
            raise
        except UserError:
            for tree in made:
                self._delete(str(tree["kind"]).lower(), str(tree["metadata"]["name"]))
            raise

    def of_jobs(self, kind: str, names: Sequence[str]) -> list[Tree]:
        """Returns the objects of a kind that belong to jobs, given by their label.

        Raises:
            UserError: the cluster refuses to say.
            Unreachable: it cannot be asked.
        """
        found: list[Tree] = []
        for start in range(0, len(names), _AT_ONCE):
            some = ",".join(sorted(set(names[start : start + _AT_ONCE])))
            query = [("labelSelector", f"{JOB_LABEL} in ({some})"), ("limit", "500")]
            following = ""
            while True:
                answer = self._ask("GET", kind, query=[*query, *([("continue", following)] if following else [])])
                found += answer.get("items") or []
                following = str((answer.get("metadata") or {}).get("continue") or "")
                if not following:
                    break
        return found

    def delete(self, kinds: Iterable[str], names: Sequence[str]) -> None:
        """Deletes the objects of jobs, and with each what it owns; it is gone once its pods have ended.

        Raises:
            UserError: the cluster refuses.
            Unreachable: it cannot be asked.
        """
        for kind in kinds:
            for tree in self.of_jobs(kind, names):
                self._delete(kind, str(tree["metadata"]["name"]))

    def pod_log(self, pod: str, container: str, *, follow: bool) -> Iterator[bytes]:
        """Yields what a pod has printed, from the start; until it ends with `follow`, or until the connection drops.

        Raises:
            UserError: there is none (yet).
            Unreachable: the cluster cannot be asked, or the connection was dropped.
        """
        import urllib3.exceptions

        query = [("container", container), *([("follow", "true")] if follow else [])]
        response = self._request("GET", "pod", f"/{pod}/log", query=query, timeout=_FOLLOW_WITHIN_S, tries=_TRIES)
        with closing(response.response) as body:
            try:
                yield from body.stream(1 << 16, decode_content=True)
            except urllib3.exceptions.ReadTimeoutError:
                return  # nothing was printed for a while
            except urllib3.exceptions.HTTPError as error:
                raise self._away(error) from None

    def _create(self, kind: str, tree: Tree, job_id: str) -> Tree:
        try:
            return self._ask("POST", kind, body=tree)
        except _Taken:
            name = tree["metadata"]["name"]
            there = self._ask("GET", kind, f"/{name}")
            if (there["metadata"].get("annotations") or {}).get(JOB_ANNOTATION) != job_id:
                raise UserError(
                    f"{kind} {self.namespace}/{name} is there and is not of job {job_id}; delete it, or submit again"
                ) from None
            return there

    def _delete(self, kind: str, name: str) -> None:
        body = {"apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Foreground"}
        try:
            self._ask("DELETE", kind, f"/{name}", body=body)
        except NotThere:
            return

    def _ask(
        self, method: str, kind: str, rest: str = "", *, query: Sequence[tuple[str, str]] = (), body: Tree | None = None
    ) -> Tree:
        text = self._request(method, kind, rest, query=query, body=body, timeout=_ANSWERS_WITHIN_S, tries=_TRIES).read()
        try:
            answer = json.loads(text)
        except ValueError:
            raise Unreachable(f"{self._host}: answers with something that is no JSON; is it Kubernetes?") from None
        return answer if isinstance(answer, dict) else {}

    def _request(
        self,
        method: str,
        kind: str,
        rest: str,
        *,
        query: Sequence[tuple[str, str]],
        timeout: tuple[int, int],
        tries: int,
        body: Tree | None = None,
    ) -> Any:
        """Returns the answer to a request, asked again where the server is busy or drops the connection."""
        import urllib3.exceptions

        path = PATHS[kind].format(namespace=self.namespace) + rest
        for attempt in range(1, tries + 1):
            try:
                answer = _send(self._client, method, path, query, body, timeout)
                if answer.status < 300:
                    return answer
                said = answer.read()
                error = self._refusal(answer.status, kind, said)
                wait_s = _retry_after(answer.getheaders())
            except (urllib3.exceptions.HTTPError, OSError) as problem:
                error, wait_s = self._away(problem), None
            if attempt == tries or not isinstance(error, Unreachable):
                raise error
            time.sleep(wait_s if wait_s is not None else 0.25 * 2**attempt * random.uniform(0.5, 1.5))
        raise AssertionError

    @cached_property
    def _client(self) -> Any:
        return _connect(self.kubeconfig, self.context)

    @property
    def _host(self) -> str:
        return str(self._client.configuration.host)

    def _away(self, problem: BaseException) -> Unreachable:
        return Unreachable(
            f"{self._host}: cannot be reached ({type(problem).__name__}); check the network, kubeconfig and context"
        )

    def _refusal(self, status: int, kind: str, said: bytes) -> UserError:
        """Returns what an answer that is no success means."""
        message = _message(said)
        where = f"{self._host}: {status}"
        if status in _NOT_NOW:
            return Unreachable(f"{where}: the API server is busy or broken ({message}); try again later")
        if status == 401:
            return UserError(f"{where}: it does not know you; log in again, or choose another context or kubeconfig")
        if status == 403:
            return UserError(f"{where}: you may not do this ({message}); ask for a role in namespace {self.namespace}")
        if status == 409:
            return _Taken(f"{where}: {message}")
        if status == 404:
            missing = f"; is {_NEEDS[kind]} installed there?" if kind in _NEEDS else ""
            return NotThere(f"{where}: {message} (namespace {self.namespace}){missing}")
        return UserError(f"{where}: refused: {message}")


class NotThere(UserError):
    """There is no such object, or no such kind of objects."""


class _Taken(UserError):
    """There is an object of that name."""


def _connect(kubeconfig: str | None, context: str | None) -> Any:
    """Returns the client.

    Raises:
        UserError: the package is missing, or the kubeconfig or its context is not there.
    """
    try:
        from kubernetes import client, config
    except ImportError:
        raise UserError("kind: kubernetes needs its client; pip install 'headway[kubernetes]'") from None
    configuration = client.Configuration()
    try:
        path = str(Path(kubeconfig).expanduser()) if kubeconfig else None
        config.load_kube_config(path, context=context, client_configuration=configuration)
    except (config.ConfigException, OSError, ValueError, TypeError, KeyError, yaml.YAMLError) as error:
        if kubeconfig or context:
            raise UserError(f"kubeconfig: {kubeconfig or 'the default'}, context {context}: {error}") from None
        try:
            # Inside a pod there is no kubeconfig, but a service account.
            config.load_incluster_config(client_configuration=configuration)
        except config.ConfigException:
            raise UserError(f"no kubeconfig: {error}; set kubeconfig and context in the profile") from None
    configuration.retries = False  # ours know what may be repeated
    return client.ApiClient(configuration)


def _send(
    client: Any,
    method: str,
    path: str,
    query: Sequence[tuple[str, str]],
    body: Tree | None,
    timeout: tuple[int, int],
) -> Any:
    headers = {"Accept": "application/json, */*", "Content-Type": "application/json"}
    request = client.param_serialize(
        method, path, query_params=list(query), header_params=headers, body=body, auth_settings=["BearerToken"]
    )
    return client.call_api(*request, _request_timeout=timeout)


def _owner(created: Mapping[str, Any]) -> Tree:
    return {
        "apiVersion": created["apiVersion"],
        "kind": created["kind"],
        "name": created["metadata"]["name"],
        "uid": created["metadata"]["uid"],
    }


def _message(said: bytes) -> str:
    """Returns the reason in a Status object; it is the cluster's text, so it is cut short."""
    try:
        message = str(json.loads(said)["message"])
    except (ValueError, KeyError, TypeError):
        message = said.decode(errors="replace") or "no reason given"
    return " ".join(message.split())[:300]


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Returns the seconds that the server asks for."""
    given = headers.get("Retry-After")
    if given is None:
        return None
    try:
        wait_s = float(given)
    except ValueError:
        try:
            wait_s = email.utils.parsedate_to_datetime(given).timestamp() - time.time()
        except ValueError:
            return None
    return min(max(wait_s, 0.0), _WAIT_AT_MOST_S)
