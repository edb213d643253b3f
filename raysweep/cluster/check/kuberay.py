"""Rules for Kubernetes manifests with RayClusters and RayJobs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from raysweep.cluster.check import rules
from raysweep.cluster.check.problem import Problem
from raysweep.cluster.check.reading import listing, mapping, mappings, value_at
from raysweep.cluster.check.schema import schema_problems

_SECRET_NAME = re.compile(r"SECRET|PASSWORD|TOKEN|API_?KEY|ACCESS_KEY|ACCOUNT_KEY|CREDENTIAL", re.IGNORECASE)
_NODE_LOCAL_VOLUMES = ("emptyDir", "hostPath", "ephemeral", "configMap", "secret", "projected", "downwardAPI")
_PUBLIC_KINDS = ("Ingress", "IngressRoute", "Gateway", "HTTPRoute", "TCPRoute", "Route", "VirtualService")

Document = dict[str, Any]


def check_kubernetes(
    documents: list[Document], schemas: Mapping[str, Mapping[str, Any]], ray: str
) -> Iterator[Problem]:
    """Yield what is wrong with the documents of a manifest for a version of Ray."""
    kinds = [str(document.get("kind")) for document in documents]
    if not any(kind in schemas for kind in kinds):
        yield Problem("kind", ", ".join(kinds), f"holds none of {', '.join(schemas)}")
    for document in documents:
        kind = str(document.get("kind"))
        name = f"{kind} {value_at(document, 'metadata', 'name')}"
        found: list[Problem] = []
        if kind in schemas:
            found += schema_problems(document, schemas[kind], f"KubeRay's definition of a {kind}")
            at = ("spec", "rayClusterSpec") if kind == "RayJob" else ("spec",)
            spec = value_at(document, *at)
            if isinstance(spec, dict):
                found += _ray_cluster(".".join(at), spec, documents, ray)
            if kind == "RayJob":
                found += _job(document, ray)
        else:
            found += _beside(kind, document)
        yield from (Problem(f"{name}: {problem.key}", problem.value, problem.wrong) for problem in found)


@dataclass(frozen=True)
class _Pod:
    """The specification of the pods of a group, and where it stands."""

    key: str
    spec: Document
    labels: Mapping[str, str]

    @property
    def containers(self) -> list[tuple[str, Document]]:
        return [(f"{self.key}.containers[{i}]", one) for i, one in enumerate(mappings(self.spec.get("containers")))]


def _ray_cluster(at: str, spec: Document, documents: list[Document], ray: str) -> Iterator[Problem]:
    head = mapping(spec.get("headGroupSpec"))
    if spec.get("rayVersion") != ray:
        yield Problem(
            f"{at}.rayVersion", str(spec.get("rayVersion", "")), f"must be {ray}, the Ray that is installed here"
        )
    yield from _reachable(f"{at}.headGroupSpec", head)
    pods = _pods(at, spec)
    if value_at(spec, "authOptions", "mode") != "token":
        yield from _token(f"{at}.authOptions.mode", pods)
    stores: set[str] = set()
    for pod in pods:
        yield from _pod(pod, ray)
        yield from _store(pod, documents, stores)
    if len(stores) > 1:
        yield Problem(f"{at}: RAYSWEEP_STORE", ", ".join(sorted(stores)), "head and workers name different stores")
    yield from _isolated(at, spec, pods, documents)


def _pods(at: str, spec: Document) -> list[_Pod]:
    groups = [("headGroupSpec", mapping(spec.get("headGroupSpec")))]
    groups += [
        (f"workerGroupSpecs[{i}]", mapping(group)) for i, group in enumerate(listing(spec.get("workerGroupSpecs")))
    ]
    return [
        _Pod(
            f"{at}.{name}.template.spec",
            mapping(value_at(group, "template", "spec")),
            mapping(value_at(group, "template", "metadata", "labels")),
        )
        for name, group in groups
    ]


def _reachable(key: str, head: Document) -> Iterator[Problem]:
    service = head.get("serviceType", "ClusterIP")
    if service != "ClusterIP":
        yield Problem(
            f"{key}.serviceType", str(service), "opens ports 6379, 8265 and 10001 outwards. Allowed: ClusterIP"
        )
    if head.get("enableIngress"):
        yield Problem(
            f"{key}.enableIngress", "true", "publishes the dashboard. Allowed: false; use kubectl port-forward"
        )
    kind = value_at(head, "headService", "spec", "type")
    if kind not in (None, "ClusterIP"):
        yield Problem(f"{key}.headService.spec.type", str(kind), "opens the head's ports outwards. Allowed: ClusterIP")


def _token(key: str, pods: list[_Pod]) -> Iterator[Problem]:
    for pod in pods:
        environment = {name: entry for _, one in pod.containers[:1] for name, entry in _env(one).items()}
        mode = environment.get("RAY_AUTH_MODE", {}).get("value")
        if mode != "token" or "secretKeyRef" not in mapping(environment.get("RAY_AUTH_TOKEN", {}).get("valueFrom")):
            yield from rules.token_mode(
                key, None, f"Write authOptions: {{mode: token}}; {pod.key} takes no token from a secret either"
            )
            return


def _pod(pod: _Pod, ray: str) -> Iterator[Problem]:
    grace = pod.spec.get("terminationGracePeriodSeconds", 30)
    if isinstance(grace, int) and grace < rules.MIN_GRACE_S:
        yield Problem(
            f"{pod.key}.terminationGracePeriodSeconds",
            str(grace),
            f"a stage needs {rules.MIN_GRACE_S} s to save when its node goes (Kubernetes' default is 30)",
        )
    for name in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.spec.get(name):
            yield Problem(
                f"{pod.key}.{name}", "true", "puts Ray's ports, or its processes, onto the node. Allowed: false"
            )
    for key, one in pod.containers:
        yield from _container(key, one, ray)


def _container(key: str, one: Document, ray: str) -> Iterator[Problem]:
    yield from rules.image(f"{key}.image", str(one.get("image", "")), ray)
    for name, entry in _env(one).items():
        if _SECRET_NAME.search(name) and entry.get("value") and not name.endswith(("_PATH", "_FILE", "_MODE")):
            yield Problem(
                f"{key}.env.{name}", "***", "a secret written out; take it from a secret: valueFrom.secretKeyRef"
            )
    for number, port in enumerate(mappings(one.get("ports"))):
        if port.get("hostPort"):
            yield Problem(
                f"{key}.ports[{number}].hostPort", str(port["hostPort"]), "opens the port on the node; leave it out"
            )
    if value_at(one, "securityContext", "privileged"):
        yield Problem(f"{key}.securityContext.privileged", "true", "Allowed: false; stages need no rights on the node")


def _store(pod: _Pod, documents: list[Document], stores: set[str]) -> Iterator[Problem]:
    key, one = next(iter(pod.containers), (pod.key, {}))
    uri = _env(one).get("RAYSWEEP_STORE", {}).get("value")
    if not isinstance(uri, str):
        yield Problem(f"{key}.env", "", "says no store: add RAYSWEEP_STORE, such as s3://bucket/prefix")
        return
    stores.add(uri)
    volumes = {str(volume.get("name")): volume for volume in mappings(pod.spec.get("volumes"))}
    shared = []
    for mount in mappings(one.get("volumeMounts")):
        volume = volumes.get(str(mount.get("name")), {})
        if volume and not any(kind in volume for kind in _NODE_LOCAL_VOLUMES) and _many_writers(volume, documents):
            shared.append(str(mount.get("mountPath")))
    how = "mount a persistent volume claim with accessModes: [ReadWriteMany] there"
    yield from rules.store(f"{key}.env.RAYSWEEP_STORE", uri, shared, how)


def _many_writers(volume: Document, documents: list[Document]) -> bool:
    """Whether several nodes may write to a volume, as far as the file says."""
    claim = value_at(volume, "persistentVolumeClaim", "claimName")
    for document in documents:
        if document.get("kind") == "PersistentVolumeClaim" and value_at(document, "metadata", "name") == claim:
            return "ReadWriteMany" in listing(value_at(document, "spec", "accessModes"))
    return True


def _isolated(at: str, spec: Document, pods: list[_Pod], documents: list[Document]) -> Iterator[Problem]:
    if value_at(spec, "networkPolicy", "mode") in ("DenyAll", "DenyAllIngress"):
        return
    policies = [document for document in documents if document.get("kind") == "NetworkPolicy"]
    for pod in pods:
        if not any(_selects(policy, pod.labels) for policy in policies):
            yield Problem(
                f"{at}.networkPolicy",
                "",
                f"every pod of Kubernetes reaches {pod.key}: KubeRay's dashboard listens on 0.0.0.0. Add a "
                "NetworkPolicy that selects its labels, or networkPolicy: {mode: DenyAllIngress}",
            )
            return


def _selects(policy: Document, labels: Mapping[str, str]) -> bool:
    wanted = mapping(value_at(policy, "spec", "podSelector", "matchLabels"))
    ingress = "Ingress" in (listing(value_at(policy, "spec", "policyTypes")) or ["Ingress"])
    return ingress and all(labels.get(name) == value for name, value in wanted.items())


def _beside(kind: str, document: Document) -> Iterator[Problem]:
    if kind in _PUBLIC_KINDS:
        yield Problem("kind", kind, "leads from outside to the cluster; use kubectl port-forward")
    if kind == "Service" and value_at(document, "spec", "type") in ("LoadBalancer", "NodePort"):
        yield Problem("spec.type", str(value_at(document, "spec", "type")), "opens ports outwards. Allowed: ClusterIP")
    if kind == "Secret" and (document.get("data") or document.get("stringData")):
        yield Problem("data", "***", "a secret written out; create it with `kubectl create secret generic`")
    if kind == "NetworkPolicy":
        for number, rule in enumerate(listing(value_at(document, "spec", "ingress"))):
            sources = listing(mapping(rule).get("from"))
            cidrs = [value_at(source, "ipBlock", "cidr") for source in sources]
            if not sources or any(cidr in rules.PUBLIC for cidr in cidrs):
                yield Problem(f"spec.ingress[{number}].from", str(cidrs or ""), "lets everybody in; name pods")


def _job(document: Document, ray: str) -> Iterator[Problem]:
    submitter = mapping(value_at(document, "spec", "submitterPodTemplate", "spec"))
    for number, one in enumerate(mappings(submitter.get("containers"))):
        yield from _container(f"spec.submitterPodTemplate.spec.containers[{number}]", one, ray)
    if not value_at(document, "spec", "shutdownAfterJobFinishes"):
        yield Problem(
            "spec.shutdownAfterJobFinishes", "", "the cluster would stay, and cost, after its study. Allowed: true"
        )


def _env(container: Document) -> dict[str, Document]:
    return {str(entry.get("name")): entry for entry in mappings(container.get("env"))}
