"""What pydantic finds wrong in a study, worded for the person who wrote it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from raysweep.errors import did_you_mean

Problem = tuple[str, str]
"""Where (a dotted key) and what."""


def validation_problems(error: ValidationError, model: Any, prefix: str = "") -> list[Problem]:
    """Turn a pydantic error into problems, with the nearest allowed key for an unknown one."""
    problems = []
    for item in error.errors(include_url=False):
        location = tuple(item["loc"])
        key = ".".join(str(part) for part in location if not _is_branch(part))
        if item["type"] == "extra_forbidden":
            allowed = _keys_at(model, location[:-1])
            problems.append((prefix + key, f"unknown key.{did_you_mean(str(location[-1]), allowed)}{listed(allowed)}"))
        elif item["type"] == "missing":
            problems.append((prefix + key, "is required"))
        elif not location:
            problems += [_split(line, prefix) for line in _message(item).splitlines()]
        else:
            problems.append((prefix + key, f"{_message(item)} (found {_short(item['input'])})"))
    return problems


def _split(line: str, prefix: str) -> Problem:
    key, separator, message = line.partition(": ")
    return (prefix + key, message) if separator else (prefix.rstrip("."), line)


def listed(allowed: Iterable[str]) -> str:
    """Return the end of a message: what is allowed."""
    return f" Allowed: {', '.join(allowed)}."


def _message(item: Any) -> str:
    return str(item["msg"]).removeprefix("Value error, ")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _is_branch(part: Any) -> bool:
    """pydantic adds the name of the union's branch to a location; a person never wrote it."""
    return isinstance(part, str) and (part in {"int", "str", "float", "bool"} or part.startswith("function-"))


def _keys_at(model: Any, location: tuple[Any, ...]) -> list[str]:
    """Return the keys allowed at a location of a model, or none if the location is no model."""
    schema = model.model_json_schema()
    node = schema
    for part in location:
        node = _resolve(schema, node)
        if isinstance(part, int):
            node = node.get("items", {})
        else:
            node = node.get("properties", {}).get(part) or node.get("additionalProperties") or {}
    return list(_resolve(schema, node).get("properties", {}))


def _resolve(schema: dict[str, Any], node: Any) -> dict[str, Any]:
    """Follow references and nullable unions to the object behind them."""
    while isinstance(node, dict):
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[-1]]
        elif "anyOf" in node:
            node = next((option for option in node["anyOf"] if option.get("type") != "null"), {})
        else:
            return node
    return {}
