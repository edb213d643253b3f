"""From sizes in GPUs or cores to clusters, and which sizes to try where nobody says."""

from __future__ import annotations

from pathlib import Path

from raysweep.errors import StudyError
from raysweep.planning import Plan
from raysweep.planning.cost import Rates, longest_paths
from raysweep.simulation.cluster import Cluster, Clusters, uniform_cluster
from raysweep.study import StageResources
from raysweep.study.load import load_settings

_DEFAULT_CORES_PER_NODE = 16
_LARGEST_DEFAULT = 1024


def clusters_of(
    plan: Plan,
    rates: Rates,
    *,
    gpus: str | None = None,
    cpus: str | None = None,
    gpus_per_node: int = 8,
    cpus_per_node: int | None = None,
    file: Path | None = None,
    spot: bool = False,
) -> list[Cluster]:
    """Return the clusters that a command line asks for: sizes as ``8,64``, and those of a file of kinds of node.

    Raises:
        StudyError: if a list of sizes, or the file, is wrong, or sizes are given in what the study does not compute on.
    """
    wanted = plan.study.resources
    kinds = (wanted.pretrain, wanted.finetune)
    on_gpu = any(kind.asks_gpu for kind in kinds)
    if on_gpu and cpus is not None:
        raise StudyError("--cpus gives sizes to studies that ask for no GPU; this one does: use --gpus 8,64")
    if not on_gpu and gpus is not None:
        raise StudyError(
            "--gpus: the study asks for no GPU, so none would be used. Use --cpus 4,16, or say what stages ask for: "
            "--set resources.pretrain.gpus=1 --set resources.finetune.gpus=0.25"
        )
    listed = load_settings(file, Clusters, "node file").listed() if file is not None else []
    text, option = (gpus, "--gpus") if on_gpu else (cpus, "--cpus")
    if text is not None:
        sizes = _parse(text, option)
    else:
        sizes = [] if listed else _default_sizes(plan, rates, gpus_per_node if on_gpu else 1)
    per_node = gpus_per_node if on_gpu else cpus_per_node or _DEFAULT_CORES_PER_NODE
    cores_per_gpu = None
    if on_gpu:
        cores_per_gpu = _cores_per_gpu(kinds) if cpus_per_node is None else cpus_per_node / gpus_per_node
    custom = {name: amount for kind in kinds for name, amount in kind.custom.items()}
    made = [uniform_cluster(n, per_node, cores_per_gpu=cores_per_gpu, custom=custom, spot=spot) for n in sizes]
    return [*made, *listed]


def _parse(text: str, option: str) -> list[int]:
    try:
        sizes = [int(part) for part in text.split(",")]
    except ValueError:
        sizes = []
    if not sizes or min(sizes) < 1:
        raise StudyError(f"{option} {text!r} is no list of sizes; give whole numbers from 1 on, such as 8,64,512")
    return list(dict.fromkeys(sizes))


def _cores_per_gpu(kinds: tuple[StageResources, ...]) -> float:
    """Return the cores that the stages which fill one GPU ask for, so that GPUs are what limits the cluster."""
    return max((kind.cpus / kind.gpu_share for kind in kinds if kind.asks_gpu), default=1.0)


def _default_sizes(plan: Plan, rates: Rates, smallest: int) -> list[int]:
    """Return powers of two from one node on, up to where more could not help: work over the longest path."""
    wanted = {"pretrain": plan.study.resources.pretrain, "finetune": plan.study.resources.finetune}
    share = {kind: found.gpu_share if found.asks_gpu else found.cpus for kind, found in wanted.items()}
    work_s = sum(rates.stage_s(stage) * share[stage.kind] for stage in plan.stages.values())
    path_s = max(longest_paths(plan, rates.stage_s).values(), default=0.0)
    enough = work_s / path_s if path_s else 1.0
    sizes = [smallest]
    while sizes[-1] < enough and sizes[-1] < _LARGEST_DEFAULT:
        sizes.append(2 * sizes[-1])
    return sizes
