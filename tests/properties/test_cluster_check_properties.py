"""Whatever stands in a cluster file, the check answers: it never fails, and a broken value is a problem of its own."""

from __future__ import annotations

import copy
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from raysweep.cluster.check import check_text
from raysweep.errors import ClusterError
from tests.unit.cluster.shipped import FILES, FOLDER

MANIFESTS = {
    file: list(yaml.safe_load_all((FOLDER / file).read_text(encoding="utf-8")))
    for file in FILES
    if file.endswith("yaml")
}
VALUES = st.sampled_from([None, True, -1, 0.5, "", "text", [], {}, [None], [[]], {"a": None}, {"name": 3}, ["x"]])


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths of everything within a value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [found for key, part in inner for found in [(*path, key), *places(part, (*path, key))]]


def replaced(value: Any, path: tuple[Any, ...], by: Any) -> Any:
    """Return a copy of a value with another one at a path."""
    changed = copy.deepcopy(value)
    node = changed
    for key in path[:-1]:
        node = node[key]
    node[path[-1]] = by
    return changed


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_any_value_anywhere_is_answered(data):
    file = data.draw(st.sampled_from(sorted(MANIFESTS)))
    documents = MANIFESTS[file]
    path = data.draw(st.sampled_from(places(documents)))
    text = yaml.dump_all(replaced(documents, path, data.draw(VALUES)), Dumper=yaml.CSafeDumper)
    try:
        findings = check_text(text, "cluster.yaml")
    except ClusterError:
        return  # it is no cluster file any more
    assert all(problem.key and problem.wrong for problem in findings.problems)
    assert all(str(problem) for problem in findings.problems)
