"""Errors of a JSON Schema as problems."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from raysweep.cluster.check.problem import Problem
from raysweep.errors import ClusterError, did_you_mean


def schema_problems(value: Any, schema: Mapping[str, Any], what: str) -> Iterator[Problem]:
    """Yield what a schema refuses in a value; ``what`` names the schema in messages."""
    from jsonschema import Draft7Validator

    for error in sorted(Draft7Validator(schema).iter_errors(value), key=lambda error: list(map(str, error.path))):
        key = path_of(error.absolute_path)
        if error.validator == "additionalProperties" and isinstance(error.instance, dict):
            allowed = sorted(error.schema.get("properties", {}))
            for name in sorted(error.instance.keys() - set(allowed)):
                near = did_you_mean(str(name), allowed)
                yield Problem(
                    f"{key}.{name}".lstrip("."), "", f"{what} has no such key.{near} Allowed: {_some(allowed)}"
                )
        elif error.validator == "required" and isinstance(error.instance, dict):
            missing = [name for name in error.validator_value if name not in error.instance]
            yield Problem(key or "file", "", f"{what} requires {', '.join(missing)}")
        else:
            yield Problem(key or "file", json.dumps(error.instance, default=str), f"{what}: {_reason(error)}")


def path_of(parts: Any) -> str:
    """Return a path of keys and positions as people write it: spec.containers[0].image."""
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


@cache
def ray_up_schema() -> dict[str, Any]:
    """Return the schema of ``ray up`` files of the Ray that is installed; Ray itself is not imported.

    Raises:
        ClusterError: if that Ray has none.
    """
    spec = find_spec("ray")
    for folder in (spec.submodule_search_locations or ()) if spec is not None else ():
        path = Path(folder) / "autoscaler" / "ray-schema.json"
        if path.exists():
            schema: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            return schema
    raise ClusterError("the schema of ray up files is part of Ray, and no Ray is installed: pip install 'ray[tune]'")


def _reason(error: Any) -> str:
    if error.validator == "type":
        wanted = error.validator_value
        return f"must be of type {' or '.join(wanted) if isinstance(wanted, list) else wanted}"
    if error.validator == "enum":
        allowed = [str(one) for one in error.validator_value]
        return f"allowed: {', '.join(allowed)}.{did_you_mean(str(error.instance), allowed)}"
    return str(error.message)


def _some(names: list[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")
