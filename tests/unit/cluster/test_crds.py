"""KubeRay's definitions, reduced."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from raysweep.cluster.check import check_text
from raysweep.cluster.crds import kuberay_schemas, reduce
from raysweep.errors import ClusterError
from tests.unit.cluster.shipped import FOLDER, ROOT

DEFINITIONS = ROOT.parent / "shared" / "schemas"


def definition(properties: dict, kind: str = "RayCluster") -> dict:
    schema = {
        "type": "object",
        "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, **properties},
    }
    version = {"name": "v1", "storage": True, "schema": {"openAPIV3Schema": schema}}
    return {"kind": "CustomResourceDefinition", "spec": {"names": {"kind": kind}, "versions": [version]}}


def schema_of(tmp_path: Path, properties: dict) -> dict:
    path = tmp_path / "crd.yaml"
    path.write_text(yaml.safe_dump(definition(properties)))
    return kuberay_schemas([path])["RayCluster"]


def test_keys_that_a_definition_does_not_name_are_refused_at_any_depth(tmp_path):
    inner = {"type": "object", "properties": {"cpu": {"type": "integer"}}}
    schema = schema_of(
        tmp_path, {"spec": {"type": "object", "properties": {"groups": {"type": "array", "items": inner}}}}
    )
    assert Draft7Validator(schema).is_valid({"kind": "RayCluster", "spec": {"groups": [{"cpu": 1}]}})
    assert not Draft7Validator(schema).is_valid({"kind": "RayCluster", "spec": {"groups": [{"cpus": 1}]}})


def test_quantities_are_numbers_or_text_and_maps_take_any_key(tmp_path):
    quantity = {"x-kubernetes-int-or-string": True, "pattern": "^[0-9]+(m|Gi)?$"}
    schema = schema_of(tmp_path, {"limits": {"type": "object", "additionalProperties": quantity}})
    for value in (1, "500m", "4Gi"):
        assert Draft7Validator(schema).is_valid({"limits": {"anything": value}})
    for value in (1.5, "four", True, {}):
        assert not Draft7Validator(schema).is_valid({"limits": {"anything": value}})


def test_parts_that_repeat_stand_once_and_mean_the_same():
    part = {
        "type": "object",
        "properties": {f"key{i}": {"type": "string"} for i in range(9)},
        "additionalProperties": False,
    }
    whole = {"type": "object", "properties": {"a": part, "b": {"type": "array", "items": part}}}
    reduced = reduce({"Kind": whole})
    assert len(reduced["$defs"]) == 1
    schema = {**reduced["kinds"]["Kind"], "$defs": reduced["$defs"]}
    for value in ({"a": {"key1": "x"}}, {"a": {"other": "x"}}, {"b": [{"key2": 3}]}, {"b": [{"key2": "x"}]}):
        assert Draft7Validator(schema).is_valid(value) == Draft7Validator(whole).is_valid(value)


def test_own_definitions_replace_those_of_raysweep(tmp_path):
    path = tmp_path / "crd.yaml"
    path.write_text(yaml.safe_dump(definition({"metadata": {"type": "object"}})))
    text = (FOLDER / "kuberay/cluster.yaml").read_text(encoding="utf-8")
    problems = [str(problem) for problem in check_text(text, "cluster.yaml", [path]).problems]
    assert any("spec: KubeRay's definition of a RayCluster has no such key" in problem for problem in problems)


@pytest.mark.parametrize("text", ["a: 1", "a: [", "kind: Pod"])
def test_what_is_no_definition_is_refused(tmp_path, text):
    path = tmp_path / "crd.yaml"
    path.write_text(text)
    with pytest.raises(ClusterError, match=r"crd\.yaml"):
        kuberay_schemas([path])


@pytest.mark.skipif(not DEFINITIONS.exists(), reason="no definitions beside this checkout")
def test_stored_schemas_are_those_of_the_definitions():
    made = reduce(kuberay_schemas(sorted(DEFINITIONS.glob("*.yaml"))))
    stored = json.loads((ROOT / "raysweep/cluster/schemas/kuberay.json").read_text(encoding="utf-8"))
    assert made == stored
