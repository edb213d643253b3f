"""The kinds of cluster files: what each is for, where the repository has it filled in, and what fills it."""

from __future__ import annotations

from dataclasses import dataclass

from raysweep.errors import ClusterError, did_you_mean

_COMMON = frozenset({"name", "gpus", "gpus_per_node", "gpu_type", "spot", "on_demand", "workers", "store", "study"})
_RAY_UP = _COMMON | {"image", "region", "ssh_user"}
_KUBERAY = (_COMMON - {"study"}) | {
    *("cpus", "memory_gb", "image", "namespace", "secret", "service_account", "claim", "storage_class", "spot_label"),
}


@dataclass(frozen=True)
class Kind:
    """A kind of cluster file."""

    name: str
    template: str
    doc: str
    options: frozenset[str]
    """Names of the options that it uses."""
    file: str
    """Where the repository has it, filled with defaults, below ``cluster/``."""


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind("aws", "aws.yaml.j2", "ray up on AWS", _RAY_UP, "aws/cluster.yaml"),
        Kind("gcp", "gcp.yaml.j2", "ray up on Google Cloud", _RAY_UP | {"project"}, "gcp/cluster.yaml"),
        Kind("azure", "azure.yaml.j2", "ray up on Azure", _RAY_UP, "azure/cluster.yaml"),
        Kind(
            "on-premise",
            "on-premise.yaml.j2",
            "ray up on machines that are there",
            frozenset({"name", "store", "study", "image", "ssh_user", "host"}),
            "on-premise/cluster.yaml",
        ),
        Kind(
            "kuberay-cluster",
            "kuberay-cluster.yaml.j2",
            "a Ray cluster on Kubernetes that takes jobs",
            _KUBERAY,
            "kuberay/cluster.yaml",
        ),
        Kind(
            "kuberay-job",
            "kuberay-job.yaml.j2",
            "one study on Kubernetes, with a cluster of its own",
            _KUBERAY | {"study"},
            "kuberay/job.yaml",
        ),
        Kind(
            "slurm",
            "slurm.sh.j2",
            "one study in one Slurm allocation",
            (_COMMON - {"spot", "on_demand"})
            | {"cpus", "memory_gb", "partition", "cpu_partition", "account", "time_limit", "venv"},
            "slurm/study.sh",
        ),
        Kind(
            "submit",
            "submit.sh.j2",
            "`ray job submit` to a cluster that runs",
            frozenset({"store", "study", "address"}),
            "submit/submit.sh",
        ),
        Kind("image", "containerfile.j2", "the container image", frozenset({"image"}), "image/Containerfile"),
    )
}

VARIANTS: dict[str, tuple[str, dict[str, object]]] = {
    "aws/spot.yaml": ("aws", {"spot": True, "on_demand": 2, "gpus": 16, "workers": 2}),
    "on-premise/nfs.yaml": ("on-premise", {"store": "/mnt/raysweep/store"}),
    "kuberay/cluster-volume.yaml": ("kuberay-cluster", {"store": "/store", "spot": True, "on_demand": 2}),
    "kuberay/job-volume-spot.yaml": ("kuberay-job", {"store": "/store", "spot": True, "gpus": 16, "workers": 2}),
    "slurm/mixed-preemptible.sh": (
        "slurm",
        {"partition": "gpu-preempt", "cpu_partition": "cpu", "workers": 1, "store": "/shared/raysweep"},
    ),
}
"""Further files of the repository: kind and options that differ from the defaults."""


def kind_of(name: str) -> Kind:
    """Return a kind by name.

    Raises:
        ClusterError: if there is none of the name.
    """
    if name not in KINDS:
        raise ClusterError(f"there is no kind {name!r}; allowed: {', '.join(KINDS)}.{did_you_mean(name, KINDS)}")
    return KINDS[name]
