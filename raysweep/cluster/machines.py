"""Machine types of the clouds that a template is filled with, by the GPU they have."""

from __future__ import annotations

from dataclasses import dataclass

from raysweep.errors import ClusterError, did_you_mean


@dataclass(frozen=True)
class Machine:
    """One machine type."""

    name: str
    gpu: str | None
    """Name of its GPU; None for a machine without one."""
    gpus: int
    cpus: int
    """Virtual CPUs."""


MACHINES: dict[str, tuple[Machine, ...]] = {
    "aws": (
        Machine("m6i.2xlarge", None, 0, 8),
        Machine("g4dn.xlarge", "T4", 1, 4),
        Machine("g6.xlarge", "L4", 1, 4),
        Machine("g5.xlarge", "A10G", 1, 4),
        Machine("g5.48xlarge", "A10G", 8, 192),
        Machine("p4d.24xlarge", "A100", 8, 96),
        Machine("p5.48xlarge", "H100", 8, 192),
    ),
    "gcp": (
        Machine("n2-standard-8", None, 0, 8),
        Machine("g2-standard-8", "L4", 1, 8),
        Machine("g2-standard-96", "L4", 8, 96),
        Machine("a2-highgpu-1g", "A100", 1, 12),
        Machine("a2-highgpu-8g", "A100", 8, 96),
        Machine("a3-highgpu-8g", "H100", 8, 208),
    ),
    "azure": (
        Machine("Standard_D8s_v5", None, 0, 8),
        Machine("Standard_NC4as_T4_v3", "T4", 1, 4),
        Machine("Standard_NV36ads_A10_v5", "A10", 1, 36),
        Machine("Standard_NC24ads_A100_v4", "A100", 1, 24),
        Machine("Standard_ND96isr_H100_v5", "H100", 8, 96),
    ),
}
"""By cloud; the first one has no GPU and serves as head and for stages without one."""

DEFAULT_GPU = {"aws": "A10G", "gcp": "L4", "azure": "A100"}


def machine_of(cloud: str, gpu: str | None, per_node: int | None) -> Machine:
    """Return the machine type with a GPU, and with so many of them where that is said.

    Raises:
        ClusterError: if the cloud's table has none.
    """
    wanted = gpu or DEFAULT_GPU[cloud]
    having = [machine for machine in MACHINES[cloud] if machine.gpu is not None]
    names = sorted({str(machine.gpu) for machine in having})
    fitting = [machine for machine in having if str(machine.gpu).lower() == wanted.lower()]
    if not fitting:
        raise ClusterError(
            f"--gpu-type {wanted!r}: no machine of {cloud} in the table has it; allowed: {', '.join(names)}."
            f"{did_you_mean(wanted.upper(), names)} Render with one of them and write your machine type into the file."
        )
    counts = {machine.gpus: machine for machine in fitting}
    if per_node is None:
        return fitting[0]
    if per_node not in counts:
        allowed = ", ".join(str(count) for count in counts)
        raise ClusterError(
            f"--gpus-per-node {per_node}: machines of {cloud} with {wanted} in the table have {allowed} of them"
        )
    return counts[per_node]
