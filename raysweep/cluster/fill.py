"""Filling the template of a cluster file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from raysweep.cluster.kinds import Kind, kind_of
from raysweep.cluster.machines import MACHINES, machine_of
from raysweep.cluster.options import ClusterOptions, flag, groups, ray_version
from raysweep.errors import ClusterError
from raysweep.study import Study, load_study

if TYPE_CHECKING:
    from jinja2 import Environment

_PLACEHOLDER_HOSTS = ("192.0.2.10", "192.0.2.11", "192.0.2.12")
"""Addresses that are nobody's (RFC 5737)."""


def fill(kind_name: str, options: Mapping[str, Any] | None = None, file: str | Path | None = None) -> str:
    """Return the text of a cluster file.

    Args:
        kind_name: a key of ``KINDS``.
        options: fields of :class:`ClusterOptions` that differ from their defaults.
        file: name that comments call the file by.

    Raises:
        ClusterError: if there is no such kind, an option does not belong to it, or a value is wrong.
        StudyError: if the study cannot be read.
    """
    kind = kind_of(kind_name)
    given = dict(options or {})
    _check_used(kind, given)
    o = ClusterOptions(**given)
    _check_together(kind, o)
    template = _environment().get_template(kind.template)
    text = template.render(o=o, ray_version=ray_version(), file=file or f"cluster/{kind.file}", **_values(kind, o))
    return text if text.endswith("\n") else text + "\n"


def _values(kind: Kind, o: ClusterOptions) -> dict[str, Any]:
    if kind.name in MACHINES:
        machine = machine_of(kind.name, o.gpu_type, o.gpus_per_node)
        return {"machine": machine, "head": MACHINES[kind.name][0], "nodes": groups(o, machine.gpus)}
    if kind.name == "on-premise":
        hosts = o.host or _PLACEHOLDER_HOSTS
        return {"hosts": hosts, "nodes": [("worker", len(hosts) - 1)]}
    if kind.name == "slurm":
        return {"parts": sorted(groups(o, o.per_node))}  # the nodes without a GPU first: Ray's head is on one of them
    values: dict[str, Any] = {"nodes": groups(o, o.per_node)}
    if kind.name == "kuberay-job":
        values["study"] = _study_text(o)
    return values


def _study_text(o: ClusterOptions) -> str:
    """Return the text of a study that travels in the file, and hold it against what its nodes have."""
    study = load_study(o.study)
    _check_fits(study, o)
    _check_paths(o.study)
    return Path(o.study).read_text(encoding="utf-8").strip()


def _check_paths(file: str) -> None:
    """Refuse files that the study names relative to its folder: where it travels to, they are not beside it.

    Raises:
        ClusterError: naming the keys.
    """
    import yaml

    document = yaml.safe_load(Path(file).read_text(encoding="utf-8"))
    named = [
        (f"packs.{name}.{key}", pack[key])
        for name, pack in document["packs"].items()
        for key in ("file", "source")
        if isinstance(pack.get(key), str)
    ]
    relative = [f"{key}: {value!r}" for key, value in named if "://" not in value and not value.startswith("/")]
    if relative:
        raise ClusterError(
            f"{file}: {'; '.join(relative)}: relative to the study's folder here, which pods do not have; give a "
            "URI, or an absolute path on a volume that every pod mounts"
        )


def _check_fits(study: Study, o: ClusterOptions) -> None:
    has = {"cpus": float(o.cpus), "gpus": float(o.per_node if o.gpus else 0), "memory_gb": float(o.memory_gb)}
    for kind, asked in (("pretrain", study.resources.pretrain), ("finetune", study.resources.finetune)):
        wants = {"cpus": asked.cpus, "gpus": asked.gpu_share if asked.asks_gpu else 0.0, "memory_gb": asked.memory_gb}
        for name, amount in wants.items():
            if amount and amount > has[name]:
                raise ClusterError(
                    f"{o.study}: resources.{kind}.{name} is {amount:g}, and a node of this cluster has {has[name]:g}; "
                    f"give nodes with more (--{'gpus-per-node' if name == 'gpus' else name.replace('_', '-')})"
                )


def _check_used(kind: Kind, given: Mapping[str, Any]) -> None:
    for name in given:
        if name not in kind.options:
            raise ClusterError(
                f"{flag(name)} says nothing to the kind {kind.name}; it takes "
                f"{', '.join(sorted(flag(option) for option in kind.options))}"
            )


def _check_together(kind: Kind, o: ClusterOptions) -> None:
    per_node = o.gpus_per_node
    if per_node is not None and o.gpus % per_node:
        raise ClusterError(f"--gpus {o.gpus}: no multiple of the {per_node} that a node has (--gpus-per-node)")
    if o.spot and not o.gpus:
        raise ClusterError("--spot: only nodes with GPUs can be spot nodes, and --gpus is 0")
    if o.on_demand and not o.spot:
        raise ClusterError(f"--on-demand {o.on_demand}: all GPUs are on demand unless --spot is given")
    if kind.name == "slurm" and o.num_workers and o.gpus and o.cpu_partition is None:
        raise ClusterError(
            f"--workers {o.num_workers}: say in which partition nodes without a GPU are: --cpu-partition"
        )


def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = files("raysweep.cluster") / "templates"
    return Environment(
        loader=FunctionLoader(lambda name: (folder / name).read_text(encoding="utf-8")),
        undefined=StrictUndefined,
        autoescape=False,
        trim_blocks=False,
        keep_trailing_newline=True,
    )
