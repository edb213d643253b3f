"""Reading study files: safe YAML, overrides from the command line, and every error at once."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import ValidationError

from raysweep import registry
from raysweep.errors import StudyError
from raysweep.secrecy import refuse_secrets
from raysweep.settings import Settings
from raysweep.study.chains import is_weights_file
from raysweep.study.check import component_problems
from raysweep.study.problems import Problem, validation_problems
from raysweep.study.schema import Study

Model = TypeVar("Model", bound=Settings)

_MERGE = "tag:yaml.org,2002:merge"


class _UniqueKeyLoader(yaml.SafeLoader):
    """A safe loader that refuses a key written twice, which YAML would silently let win."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    seen = set()
    for key_node, _ in node.value:
        if key_node.tag == _MERGE:
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            raise yaml.constructor.ConstructorError(None, None, f"{key!r} cannot be a key", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} stands twice", key_node.start_mark)
        seen.add(key)
    loader.flatten_mapping(node)
    return dict(loader.construct_pairs(node, deep=True))


_UniqueKeyLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load_study(path: str | Path, overrides: Iterable[str] = ()) -> Study:
    """Read and validate a study file.

    Args:
        path: the YAML file.
        overrides: ``dotted.key=value`` texts applied to it, the value being YAML: ``grid.seed=[0,1]``.

    Raises:
        StudyError: naming the file and every key that is wrong, with what is allowed; or if it holds a secret.
    """
    file = Path(path)
    document = _unshared(_read_mapping(file, "study file"))
    for override in overrides:
        refuse_secrets(override, f"--set {override.partition('=')[0]}")
        _apply(document, override)
    return validate_study(_anchored(document, file.parent), str(file))


def load_settings(path: str | Path, model: type[Model], what: str) -> Model:
    """Read and validate a file of settings that is no study, such as prices.

    Raises:
        StudyError: naming the file and every key that is wrong, with what is allowed.
    """
    document = _read_mapping(Path(path), what)
    try:
        return model.model_validate(document)
    except ValidationError as error:
        raise StudyError(_report(f"{what} {path}", validation_problems(error, model))) from error


def _read_mapping(file: Path, what: str) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        refuse_secrets(text, f"{what} {file}")
        document = yaml.load(text, _UniqueKeyLoader)  # a SafeLoader
    except OSError as error:
        raise StudyError(f"{what} {file} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StudyError(f"{what} {file} is not valid YAML: {error}") from error
    if not isinstance(document, dict):
        raise StudyError(f"{what} {file} holds {type(document).__name__}; it must be a mapping of keys")
    return document


def validate_study(document: dict[str, Any], where: str = "study") -> Study:
    """Validate a study given as a mapping.

    Raises:
        StudyError: naming every key that is wrong, with what is allowed.
    """
    try:
        return Study.model_validate(document)
    except ValidationError as error:
        problems = [*validation_problems(error, Study), *component_problems(document)]
        raise StudyError(_report(where, list(dict.fromkeys(problems)))) from error


def study_schema() -> dict[str, Any]:
    """Return the JSON Schema of a study file, with the settings of every task and method, for editors."""
    schema = Study.model_json_schema()
    tasks = [_with_kind("tasks", "TASK", name) for name in registry.names("tasks")]
    schema["properties"]["tasks"]["additionalProperties"] = {"anyOf": tasks}
    tunings = [_with_kind("tuning", "TUNING", name) for name in registry.names("tuning")]
    schema["properties"]["tunings"]["additionalProperties"] = {"anyOf": tunings}
    _allow_short_forms(schema)
    methods = {
        name: registry.load("methods", name).METHOD.Settings.model_json_schema() for name in registry.names("methods")
    }
    pretraining = schema["$defs"]["Pretraining"]["properties"]["methods"]
    pretraining["properties"] = methods
    pretraining["additionalProperties"] = False
    definitions = schema["$defs"]
    for part in (*tasks, *tunings, *methods.values()):
        definitions.update(part.pop("$defs", {}))
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    return schema


def describe_studies(folder: Path) -> dict[str, str]:
    """Return path -> description of every study file in a folder; a file that is not valid says so."""
    found = {}
    for file in sorted(folder.glob("*.yaml")):
        try:
            found[str(file)] = load_study(file).description
        except StudyError as error:
            found[str(file)] = f"not valid: {str(error).splitlines()[0]}"
    return found


def _allow_short_forms(schema: dict[str, Any]) -> None:
    """Let a source be one step instead of a list, a step be `random`, and weights be a name or a file."""
    step = {"anyOf": [{"const": "random"}, {"$ref": "#/$defs/Step"}]}
    chain = schema["properties"]["sources"]["additionalProperties"]
    chain["items"] = step
    schema["properties"]["sources"]["additionalProperties"] = {"anyOf": [*step["anyOf"], chain]}
    schema["$defs"]["Step"]["properties"]["weights"]["anyOf"].append({"type": "string"})
    schema["$defs"]["WeightsStep"]["properties"]["normalisation"]["anyOf"].append({"type": "string"})


def _with_kind(kind: str, attribute: str, name: str) -> dict[str, Any]:
    """Return the schema of a component's settings with the key that names it."""
    schema: dict[str, Any] = getattr(registry.load(kind, name), attribute).Settings.model_json_schema()
    schema["properties"] = {"kind": {"const": name}, **schema.get("properties", {})}
    schema["required"] = ["kind", *schema.get("required", [])]
    return schema


def _report(where: str, problems: list[Problem]) -> str:
    lines = "\n".join(f"  {key}: {message}" if key else f"  {message}" for key, message in problems)
    count = f"{len(problems)} error" + ("s" if len(problems) > 1 else "")
    return f"{where}: {count}\n{lines}"


def _unshared(node: Any) -> Any:
    """Return a copy without the sharing that YAML aliases leave: an override changes one place, not several."""
    if isinstance(node, dict):
        return {key: _unshared(value) for key, value in node.items()}
    return [_unshared(value) for value in node] if isinstance(node, list) else node


def _apply(document: dict[str, Any], override: str) -> None:
    key, separator, text = override.partition("=")
    if not separator or not key:
        raise StudyError(f"override {override!r} is not of the form key=value, such as grid.seed=[0,1]")
    try:
        value = yaml.load(text, _UniqueKeyLoader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise StudyError(f"override {key}: {text!r} is not valid YAML: {error}") from error
    node = document
    *parents, last = key.split(".")
    for depth, part in enumerate(parents):
        node = node.setdefault(part, {})
        if not isinstance(node, dict):
            where = ".".join(parents[: depth + 1])
            raise StudyError(f"override {key}: {where} is not a mapping in the study file")
    node[last] = value


def _anchored(document: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Make relative paths start at the study file's folder."""

    def anchor(value: Any) -> Any:
        if not isinstance(value, str) or "://" in value:
            return value
        return str((folder / Path(value).expanduser()).absolute())

    for pack in _dicts(document.get("packs")):
        for key in ("file", "source"):
            if key in pack:
                pack[key] = anchor(pack[key])
    sources = document.get("sources")
    for chain in sources.values() if isinstance(sources, dict) else ():
        for step in chain if isinstance(chain, list) else [chain]:
            weights = step.get("weights") if isinstance(step, dict) else None
            if isinstance(weights, dict) and "file" in weights:
                weights["file"] = anchor(weights["file"])
            elif isinstance(weights, str) and is_weights_file(weights):
                step["weights"] = anchor(weights)
    return document


def _dicts(mapping: Any) -> list[dict[str, Any]]:
    return [value for value in mapping.values() if isinstance(value, dict)] if isinstance(mapping, dict) else []
