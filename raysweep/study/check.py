"""Checks across a study's parts: names that must exist, settings of components, axes that must fit the sources."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from raysweep import protocols, registry
from raysweep.errors import StudyError, did_you_mean
from raysweep.study.pairs import architecture_of
from raysweep.study.problems import Problem, listed, validation_problems

if TYPE_CHECKING:
    from raysweep.study.schema import Study


def problems_of(study: Study) -> list[Problem]:
    """Return everything in a study that does not fit together."""
    return [
        *_paper_problems(study),
        *_source_problems(study),
        *_architecture_problems(study),
        *_task_problems(study.tasks, study.packs),
        *_method_problems(study.pretraining.methods),
        *_tuning_problems(study.tunings),
        *_grid_problems(study),
        *_stop_problems(study),
        *_resource_problems(study),
        *_encoder_problems(study),
        *_network_problems(study),
    ]


def component_problems(document: Mapping[str, Any]) -> list[Problem]:
    """Return what is wrong in components' settings and on the axes of a document that is no valid study otherwise."""
    tasks, pretraining = document.get("tasks"), document.get("pretraining")
    methods = pretraining.get("methods") if isinstance(pretraining, dict) else None
    packs = document.get("packs")
    known = packs if isinstance(packs, dict) else None
    grid = document.get("grid")
    return [
        *_task_problems(_mappings(tasks), known),
        *_method_problems(_mappings(methods)),
        *_tuning_problems(_mappings(document.get("tunings"))),
        *(_axis_problems(grid, document) if isinstance(grid, dict) else ()),
    ]


def _mappings(value: Any) -> dict[str, dict[str, Any]]:
    if not isinstance(value, dict):
        return {}
    return {str(name): settings for name, settings in value.items() if isinstance(settings, dict)}


def _resource_problems(study: Study) -> Iterator[Problem]:
    if study.resources.finetune.num_ranks > 1:
        yield "resources.finetune", "a fine-tuning is one process on at most one GPU: ask for gpus: 1 or a share of one"


def _stop_problems(study: Study) -> Iterator[Problem]:
    if study.stop.seeds == "all":
        return
    if study.stop.reference is None:
        yield "stop.reference", f"is required where stop.seeds is decided: one of {', '.join(study.grid.source)}"
    else:
        yield from _unknown("stop.reference", study.stop.reference, study.grid.source)
    if len(study.grid.seed) <= study.stop.min_seeds:
        least = study.stop.min_seeds
        yield "stop.seeds", f"decided needs more than min_seeds: {least} seeds; grid.seed has {len(study.grid.seed)}"


def _paper_problems(study: Study) -> Iterator[Problem]:
    if study.paper is not None:
        yield from _unknown("paper", study.paper, protocols.names())
    elif study.protocol == "paper-exact":
        yield "paper", f"is required where the protocol is paper-exact: one of {', '.join(protocols.names())}"


def _source_problems(study: Study) -> Iterator[Problem]:
    for name, chain in study.sources.items():
        for position, step in enumerate(chain):
            if step.pretrain is None:
                continue
            where = f"sources.{name}.{position}.pretrain"
            yield from _unknown(f"{where}.pack", step.pretrain.pack, study.packs)
            if step.pretrain.method is not None:
                yield from _unknown(f"{where}.method", step.pretrain.method, registry.names("methods"))
    for name, pack in study.packs.items():
        if pack.dataset is not None:
            yield from _unknown(f"packs.{name}.dataset", pack.dataset, registry.names("datasets"))


def _architecture_problems(study: Study) -> Iterator[Problem]:
    """Yield sources on the grid whose weights are of another architecture than every backbone on the grid."""
    for name in (source for source in study.grid.source if source in study.sources):
        wanted = architecture_of(study, name)
        encoders = {study.backbones[key].encoder: key for key in study.backbone_names if key in study.backbones}
        weights = study.sources[name][0].weights
        if weights is None or weights.zoo is None or not encoders or wanted in (None, *encoders):
            continue
        encoder, backbone = next(iter(encoders.items()))
        yield (
            f"sources.{name}.0.weights",
            f"{weights.zoo!r} are of {wanted}, but backbones.{backbone}.encoder is {encoder}",
        )


def _task_problems(tasks: Mapping[str, dict[str, Any]], packs: Iterable[str] | None) -> Iterator[Problem]:
    for name, values in tasks.items():
        where = f"tasks.{name}"
        kind = values.get("kind")
        if kind is None:
            yield f"{where}.kind", f"is required: one of {', '.join(registry.names('tasks'))}"
            continue
        if problems := list(_unknown(f"{where}.kind", kind, registry.names("tasks"))):
            yield from problems
            continue
        model = registry.load("tasks", kind).TASK.Settings
        try:
            settings = model.model_validate({key: value for key, value in values.items() if key != "kind"})
        except ValidationError as error:
            yield from validation_problems(error, model, f"{where}.")
        else:
            if packs is not None:
                yield from _unknown(f"{where}.pack", settings.pack, packs)


def _method_problems(methods: Mapping[str, dict[str, Any]]) -> Iterator[Problem]:
    for name, values in methods.items():
        yield from _settings_problems("methods", "METHOD", name, values, f"pretraining.methods.{name}")


def _tuning_problems(tunings: Mapping[str, dict[str, Any]]) -> Iterator[Problem]:
    for name, values in tunings.items():
        where = f"tunings.{name}"
        if "kind" not in values:
            yield f"{where}.kind", f"is required: one of {', '.join(registry.names('tuning'))}"
            continue
        settings = {key: value for key, value in values.items() if key != "kind"}
        yield from _settings_problems("tuning", "TUNING", values["kind"], settings, where, ".kind")


def _settings_problems(
    kind: str, attribute: str, name: str, values: Mapping[str, Any], where: str, of_name: str = ""
) -> Iterator[Problem]:
    """Yield what is wrong with the name of a component, or with its settings."""
    if problems := list(_unknown(f"{where}{of_name}", name, registry.names(kind))):
        yield from problems
        return
    model = getattr(registry.load(kind, name), attribute).Settings
    try:
        model.model_validate(values)
    except ValidationError as error:
        yield from validation_problems(error, model, f"{where}.")


def _axis_problems(axes: Mapping[str, Any], document: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield names on the axes that nothing in the document, or no component, goes by."""
    allowed: dict[str, Any] = {axis: document.get(f"{axis}s") for axis in ("source", "task", "backbone")}
    allowed["method"] = registry.names("methods")
    own = document.get("tunings")
    allowed["tuning"] = [*registry.names("tuning"), *(own if isinstance(own, dict) else ())]
    for axis, names in allowed.items():
        for name in _list(axes.get(axis)) if isinstance(names, dict | list) else ():
            yield from _unknown(f"grid.{axis}", name, names)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _grid_problems(study: Study) -> Iterator[Problem]:
    grid = study.grid
    document = {part: getattr(study, part) for part in ("sources", "tasks", "backbones", "tunings")}
    yield from _axis_problems(grid.__dict__, document)
    if not set(grid.source) <= set(study.sources):
        return  # what the axes apply to is not known
    steps = [step.pretrain for name in grid.source for step in study.sources[name] if step.pretrain]
    for axis, attribute in (("method", "method"), ("pretrain_epochs", "epochs")):
        taken = any(getattr(step, attribute) is None for step in steps)
        if taken and not getattr(grid, axis):
            yield f"grid.{axis}", f"is empty, but a source's pretrain step leaves its {attribute} to this axis"
        if not taken and getattr(grid, axis):
            yield (
                f"grid.{axis}",
                f"has values, but no source on the grid leaves its {attribute} to this axis; remove the axis or the "
                f"steps' own {attribute}",
            )


def _encoder_problems(study: Study) -> Iterator[Problem]:
    """Yield encoders that a method of the grid cannot train; only methods that are particular are asked.

    Asking one builds the encoder without weights, which takes the import of torch.
    """
    sources = [study.sources[name] for name in study.grid.source if name in study.sources]
    steps = [step.pretrain for chain in sources for step in chain if step.pretrain]
    named = {step.method for step in steps if step.method is not None}
    used = named | set(study.grid.method if any(step.method is None for step in steps) else ())
    for name in sorted(used & set(registry.names("methods"))):
        method = registry.load("methods", name).METHOD
        if not method.is_particular():
            continue
        for backbone in study.backbone_names:
            if backbone not in study.backbones:
                continue
            try:
                method.check_backbone(study.backbones[backbone], study.pretraining.image_size)
            except StudyError as error:
                yield f"backbones.{backbone}", str(error)


def _network_problems(study: Study) -> Iterator[Problem]:
    """Yield tasks of the grid whose network cannot be built around an encoder of the grid."""
    for name in study.task_names:
        kind = study.tasks.get(name, {}).get("kind")
        if kind not in registry.names("tasks"):
            continue
        try:
            settings = study.task_settings(name)
        except ValidationError:
            continue  # stated with the task's settings
        for backbone in study.backbone_names:
            try:
                if backbone in study.backbones:
                    registry.load("tasks", kind).TASK.check_backbone(settings, study.backbones[backbone])
            except StudyError as error:
                yield f"tasks.{name}", f"{error} (backbones.{backbone})"


def _unknown(where: str, name: str, allowed: Iterable[str]) -> Iterator[Problem]:
    known = list(allowed)
    if name not in known:
        yield where, f"unknown name {name!r}.{did_you_mean(str(name), known)}{listed(known)}"
