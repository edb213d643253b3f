"""What KubeRay's custom resource definitions allow, reduced to what validation needs.

``schemas/kuberay.json`` is made by this module from the definitions that the KubeRay operator 1.7 installs (Apache-2.0,
the KubeRay authors): the schema of version v1 alone, without descriptions, each repeated part once::

    python -m raysweep.cluster.crds rayclusters.yaml rayjobs.yaml > raysweep/cluster/schemas/kuberay.json

An operator of another version has other definitions: ``kubectl get crd rayjobs.ray.io -o yaml`` prints them, and
``raysweep cluster check FILE --crd`` takes them as they are.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from raysweep.errors import ClusterError

_KEPT = {"type", "required", "enum", "pattern", "minimum", "maximum", "minLength", "maxLength", "minItems", "nullable"}
_SHORTEST_SHARED = 120
"""Characters of JSON from which a part that stands in the schema twice is written once."""

Schema = dict[str, Any]


def kuberay_schemas(definitions: Iterable[Path] = ()) -> dict[str, Schema]:
    """Return JSON Schemas by kind of resource: of raysweep's own copy, or of the files of definitions given.

    Raises:
        ClusterError: if a file is no custom resource definition.
    """
    given = list(definitions)
    if given:
        return {kind: schema for path in given for kind, schema in _read(path).items()}
    return _stored()


@cache
def _stored() -> dict[str, Schema]:
    stored = json.loads((files("raysweep.cluster") / "schemas" / "kuberay.json").read_text(encoding="utf-8"))
    shared = {"$defs": stored["$defs"]}
    return {kind: {**schema, **shared} for kind, schema in stored["kinds"].items()}


def reduce(schemas: Mapping[str, Schema]) -> Schema:
    """Return the schemas of several kinds as one document in which every repeated part stands once."""
    counts: Counter[str] = Counter()
    for schema in schemas.values():
        _count(schema, counts)
    shared: dict[str, Schema] = {}
    kinds = {kind: _share(schema, counts, shared) for kind, schema in schemas.items()}
    return {"kinds": kinds, "$defs": dict(sorted(shared.items()))}


def _read(path: Path) -> dict[str, Schema]:
    import yaml

    try:
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # definitions have a megabyte
        documents = list(yaml.load_all(path.read_text(encoding="utf-8"), loader))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ClusterError(f"{path}: cannot be read as YAML: {error}") from error
    found = {}
    for document in documents:
        if not isinstance(document, dict) or document.get("kind") != "CustomResourceDefinition":
            raise ClusterError(
                f"{path}: holds no CustomResourceDefinition; `kubectl get crd rayjobs.ray.io -o yaml` prints one"
            )
        version = next(version for version in document["spec"]["versions"] if version["storage"])
        found[document["spec"]["names"]["kind"]] = _strict(version["schema"]["openAPIV3Schema"])
    return found


def _strict(schema: Mapping[str, Any]) -> Schema:
    """Return a structural schema as JSON Schema: what it does not name is refused, as `kubectl apply` does."""
    result: Schema = {key: schema[key] for key in _KEPT & schema.keys()}
    if schema.get("x-kubernetes-int-or-string"):
        result["type"] = ["integer", "string"]
    if result.pop("nullable", False) and isinstance(result.get("type"), str):
        result["type"] = [result["type"], "null"]
    if "properties" in schema:
        result["properties"] = {name: _strict(inner) for name, inner in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields") and "additionalProperties" not in schema:
            result["additionalProperties"] = False
    if isinstance(schema.get("additionalProperties"), Mapping):
        result["additionalProperties"] = _strict(schema["additionalProperties"])
    if "items" in schema:
        result["items"] = _strict(schema["items"])
    return result


def _text(schema: Schema) -> str:
    return json.dumps(schema, sort_keys=True, separators=(",", ":"))


def _parts(schema: Schema) -> list[Schema]:
    parts = list(schema.get("properties", {}).values())
    parts += [schema[key] for key in ("items", "additionalProperties") if isinstance(schema.get(key), dict)]
    return parts


def _count(schema: Schema, counts: Counter[str]) -> None:
    text = _text(schema)
    counts[text] += 1
    if counts[text] == 1:  # what lies within a repeated part is written once with it
        for part in _parts(schema):
            _count(part, counts)


def _share(schema: Schema, counts: Counter[str], shared: dict[str, Schema]) -> Schema:
    text = _text(schema)
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {name: _share(part, counts, shared) for name, part in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            result[key] = _share(schema[key], counts, shared)
    if counts[text] > 1 and len(text) >= _SHORTEST_SHARED:
        name = hashlib.sha256(text.encode()).hexdigest()[:10]
        shared[name] = result
        return {"$ref": f"#/$defs/{name}"}
    return result


def main(paths: Iterable[str]) -> None:
    """Write the reduced schemas of files of definitions to the standard output."""
    schemas = {kind: schema for path in paths for kind, schema in _read(Path(path)).items()}
    reduced = reduce(schemas)
    lines = [f'"{name}":{_text(schema)}' for name, schema in reduced["$defs"].items()]
    kinds = [f'"{kind}":{_text(schema)}' for kind, schema in reduced["kinds"].items()]
    sys.stdout.write('{"kinds":{\n' + ",\n".join(kinds) + '\n},"$defs":{\n' + ",\n".join(lines) + "\n}}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
