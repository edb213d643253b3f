"""What a cluster file can be filled with. The options of ``raysweep cluster render`` are made from this class."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, field, fields
from typing import Any, Literal, cast

from raysweep._version import __version__
from raysweep.errors import ClusterError

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,38}[a-z0-9])?")
_WORD = re.compile(r"[A-Za-z0-9_./:@%+=,~-]+")

Rule = Callable[[Any], str | None]
"""Returns what is wrong with a value, if anything."""


def _name(value: Any) -> str | None:
    allowed = "lower-case letters, digits and -, at most 40 characters, no - at either end"
    return None if _NAME.fullmatch(value) else f"allowed: {allowed}"


def _word(value: Any) -> str | None:
    """Refuse what could end a value of a template and begin another: quotes, spaces, line ends, dollars."""
    return None if _WORD.fullmatch(value) else "allowed: letters, digits and _ . / : @ % + = , ~ -"


def _label(value: Any) -> str | None:
    return _word(value) if value.count("=") == 1 else "a label is KEY=VALUE, such as cloud.google.com/gke-spot=true"


def _at_least(least: int) -> Rule:
    return lambda value: None if value >= least else f"must be at least {least}"


def ray_version() -> str:
    """Return the version of the Ray that is installed.

    Raises:
        ClusterError: if none is.
    """
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("ray")
    except PackageNotFoundError as error:
        raise ClusterError("no Ray is installed, so nothing says which one nodes must have: pip install ray") from error


def default_image() -> str:
    """Return the image that templates name until one is given: a placeholder whose tag is right."""
    return f"registry.example.org/raysweep:{__version__}-ray{ray_version()}"


def _option(doc: str, default: Any = None, rule: Rule = _word, metavar: str = "TEXT") -> Any:
    metadata = {"doc": doc, "rule": rule, "metavar": metavar}
    if callable(default):
        return field(default_factory=default, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class ClusterOptions:
    """Options of a cluster file; each kind uses some of them.

    Raises:
        ClusterError: naming every wrong value.
    """

    gpus: int = _option("GPUs in all, at most.", 8, _at_least(0), "N")
    gpus_per_node: int | None = _option("GPUs of a node; else the machine type's, or 1.", None, _at_least(1), "N")
    gpu_type: str | None = _option("GPU: A100, H100, ...; nvidia.com/gpu.product of Kubernetes, gres of Slurm.")
    spot: bool = _option("Nodes with GPUs are spot nodes.", False, lambda _: None)
    on_demand: int = _option("GPUs that are no spot ones although --spot is given.", 0, _at_least(0), "N")
    workers: int | None = _option("Nodes without a GPU; else none, or 2 with --gpus 0.", None, _at_least(0), "N")
    cpus: int = _option("CPU cores of a node, where no machine type says it.", 8, _at_least(1), "N")
    memory_gb: int = _option("Memory of a node, where no machine type says it.", 32, _at_least(4), "GB")
    store: str = _option("Store: a URI, or a folder that all nodes share.", "s3://my-bucket/raysweep", metavar="URI")
    study: str = _option("Study file that is run.", "search_spaces/quickstart.yaml", metavar="FILE")
    image: str = _option("Container image whose tag names Ray's version.", default_image)
    name: str = _option("Name of the cluster, or of the job.", "raysweep", _name)
    namespace: str = _option("Kubernetes namespace.", "raysweep", _name)
    secret: str | None = _option("Kubernetes secret with the store's credentials, without a role.", None, _name)
    service_account: str = _option("Kubernetes service account of the pods, with that role.", "raysweep", _name)
    claim: str = _option("Persistent volume claim, where the store is a folder.", "raysweep-store", _name)
    storage_class: str | None = _option("Storage class of that claim; it must offer ReadWriteMany.", None, _name)
    spot_label: str = _option(
        "Label and taint of Kubernetes' spot nodes.", "cloud.google.com/gke-spot=true", _label, "KEY=VALUE"
    )
    region: str | None = _option("Region of the cloud.")
    project: str = _option("Project of Google Cloud.", "my-project")
    ssh_user: str = _option("User to log in as.", "ubuntu")
    host: tuple[str, ...] = _option(
        "Address of an own machine, the head's first; repeatable.",
        (),
        lambda hosts: next(filter(None, map(_word, hosts)), None),
    )
    partition: str = _option("Slurm partition of nodes with GPUs; its jobs may be preempted.", "gpu")
    cpu_partition: str | None = _option("Slurm partition of nodes without a GPU, in the same allocation.")
    account: str | None = _option("Slurm account.")
    time_limit: str = _option("Slurm time limit; at its end the job is queued again.", "24:00:00", metavar="H:MM:SS")
    venv: str = _option("Virtual environment that every Slurm node sees.", "/shared/raysweep/venv", metavar="DIR")
    address: str = _option("Dashboard that jobs are submitted to.", "http://127.0.0.1:8265", metavar="URL")

    def __post_init__(self) -> None:
        wrong = []
        for one in fields(self):
            value = getattr(self, one.name)
            problem = None if value is None else one.metadata["rule"](value)
            if problem is not None:
                wrong.append(f"{flag(one.name)} {value!r}: {problem}")
        if wrong:
            raise ClusterError("\n".join(wrong))

    @property
    def num_workers(self) -> int:
        """Nodes without a GPU."""
        return self.workers if self.workers is not None else 0 if self.gpus else 2

    @property
    def per_node(self) -> int:
        """GPUs of a node, where no machine type says it."""
        return self.gpus_per_node or 1

    @property
    def store_is_folder(self) -> bool:
        """Whether the store is a path, not a URI."""
        return "://" not in self.store


def flag(name: str) -> str:
    """Return an option as it is written on the command line."""
    return "--" + name.replace("_", "-")


def help_of(option: Field[Any]) -> str:
    """Return what an option means, with its default."""
    doc = cast("str", option.metadata["doc"])
    default = option.default
    if default is MISSING or default in (None, False, ()):
        return doc
    return f"{doc} Default: {default}."


Group = tuple[Literal["gpu", "gpu-spot", "cpu"], int]
"""Kind of a group of nodes, and how many nodes it has at most."""


def groups(options: ClusterOptions, per_node: int) -> list[Group]:
    """Return the groups of worker nodes; those without a node are left out."""
    on_demand = min(options.on_demand, options.gpus) if options.spot else options.gpus
    found: list[Group] = [
        ("gpu", math.ceil(on_demand / per_node)),
        ("gpu-spot", math.ceil((options.gpus - on_demand) / per_node)),
        ("cpu", options.num_workers),
    ]
    return [(kind, nodes) for kind, nodes in found if nodes]
