"""Checking cluster files: against Ray's schema, KubeRay's definitions, and the rules of this package."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from raysweep.cluster.check import rules
from raysweep.cluster.check.containerfile import check_containerfile
from raysweep.cluster.check.kuberay import check_kubernetes
from raysweep.cluster.check.problem import Findings, Problem
from raysweep.cluster.check.ray_up import check_ray_up
from raysweep.cluster.check.scripts import check_slurm, check_submit
from raysweep.cluster.crds import kuberay_schemas
from raysweep.cluster.options import ray_version
from raysweep.errors import ClusterError

__all__ = ["Findings", "Problem", "check_file", "check_text"]


def check_file(path: Path, definitions: Iterable[Path] = ()) -> Findings:
    """Check one file; what it is, its content says.

    Args:
        path: a ray up file, a Kubernetes manifest, a Slurm job, a submission script or a Containerfile.
        definitions: files of custom resource definitions to use instead of those of KubeRay 1.7.

    Raises:
        ClusterError: if the file cannot be read, or is none of these.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ClusterError(f"{path}: cannot be read: {error}") from error
    return check_text(text, path.name, definitions)


def check_text(text: str, name: str, definitions: Iterable[Path] = ()) -> Findings:
    """Check the text of a file of some name.

    Raises:
        ClusterError: if it is no cluster file.
    """
    kind, found = _check(text, name, definitions)
    return Findings(kind, (*found, *rules.secrets(text)), rules.to_fill_in(text))


def _check(text: str, name: str, definitions: Iterable[Path]) -> tuple[str, Iterator[Problem]]:
    if name.lower().startswith(("containerfile", "dockerfile")):
        return "Containerfile", check_containerfile(text)
    if text.startswith("#!"):
        if "#SBATCH" in text:
            return "Slurm job", check_slurm(text)
        if "ray job submit" in text:
            return "submission script", check_submit(text)
    else:
        documents = _documents(text, name)
        if documents and all("apiVersion" in document for document in documents):
            return "Kubernetes manifest", check_kubernetes(documents, kuberay_schemas(definitions), ray_version())
        if len(documents) == 1 and {"cluster_name", "provider"} & documents[0].keys():
            return "ray up file", check_ray_up(documents[0], ray_version())
    raise ClusterError(
        f"{name}: is no cluster file. Allowed: a ray up file (cluster_name, provider), a Kubernetes manifest "
        "(apiVersion), a Slurm job (#SBATCH), a script with `ray job submit`, a Containerfile"
    )


def _documents(text: str, name: str) -> list[dict[str, Any]]:
    import yaml

    try:
        return [document for document in yaml.safe_load_all(text) if isinstance(document, dict)]
    except yaml.YAMLError as error:
        raise ClusterError(f"{name}: is no YAML: {error}") from error
