"""Reading files that may hold anything anywhere: what is of another type than expected counts as not there."""

from __future__ import annotations

from typing import Any


def mapping(value: Any) -> dict[str, Any]:
    """Return a mapping, or an empty one."""
    return value if isinstance(value, dict) else {}


def listing(value: Any) -> list[Any]:
    """Return a list, or an empty one."""
    return value if isinstance(value, list) else []


def mappings(value: Any) -> list[dict[str, Any]]:
    """Return the mappings of a list."""
    return [entry for entry in listing(value) if isinstance(entry, dict)]


def texts(value: Any) -> list[str]:
    """Return the texts of a list."""
    return [entry for entry in listing(value) if isinstance(entry, str)]


def value_at(value: Any, *keys: str) -> Any:
    """Return what stands at a path of keys, or None."""
    for key in keys:
        value = mapping(value).get(key)
    return value
