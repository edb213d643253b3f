"""The Grafana dashboard and Prometheus' settings: valid, and about metrics that exist."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from raysweep.engine.metrics import METRICS
from tests.unit.cluster.shipped import FOLDER

DASHBOARD = FOLDER / "watch/grafana.json"
FUNCTIONS = {"sum", "rate", "increase", "histogram_quantile", "by", "le", "avg", "max", "clamp_min", "max_over_time"}
SERVED_BY_RAY = {"ray_node_gpus_utilization", "ray_node_cpu_utilization", "ray_node_mem_used", "ray_node_gram_used"}
"""Those of Ray's own that the dashboard may show; the ones about GPUs are served where there is one."""


def queries() -> list[str]:
    """Return every query of the dashboard."""
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]


def names_in(query: str) -> set[str]:
    """Return the metrics that a query names."""
    text = re.sub(r"\{[^}]*\}|\[[^]]*\]|\bby \([^)]*\)", "", query)
    return set(re.findall(r"[a-zA-Z_]\w*", text)) - FUNCTIONS


def names_of_ray() -> set[str]:
    """Return the metrics of Ray's own that the dashboard shows and a machine without a GPU has."""
    return {name for query in queries() for name in names_in(query) if "raysweep" not in name and "_g" not in name}


def ours() -> set[str]:
    """Return the names that Ray's agent serves our metrics under."""
    names = set()
    for metric in METRICS:
        endings = ("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",)
        names |= {f"ray_{metric.name}{ending}" for ending in endings}
    return names


@pytest.mark.parametrize("query", queries())
def test_query_names_metrics_that_exist(query):
    assert names_in(query)
    assert names_in(query) <= ours() | SERVED_BY_RAY


@pytest.mark.parametrize("query", queries())
def test_query_selects_by_labels_that_its_metric_has(query):
    labels = {f"ray_{metric.name}": set(metric.labels) for metric in METRICS}
    for name, selected in re.findall(r"(ray_raysweep_\w+)\{([^}]*)\}", query):
        metric = next(known for known in labels if name.startswith(known))
        assert set(re.findall(r"(\w+)=~?\"", selected)) <= labels[metric]
    for grouped in re.findall(r"by \(([^)]*)\)", query):
        names = {name.strip() for name in grouped.split(",")}
        assert names <= {label for known in labels.values() for label in known} | {"le", "instance", "ip"}


def test_every_metric_is_on_the_dashboard():
    shown = {name for query in queries() for name in names_in(query)}
    assert [metric.name for metric in METRICS if not any(name.startswith(f"ray_{metric.name}") for name in shown)] == []


def test_page_tells_every_metric_with_its_kind_and_labels():
    page = (FOLDER / "watch/README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"(?m)^\| `(ray_raysweep_\w+)` \| (\w+ \| [\w, ]*) ?\|", page))
    told = {name: (row.split(" | ")[0], tuple(re.findall(r"\w+", row.split("|")[1]))) for name, row in rows.items()}
    assert told == {f"ray_{metric.name}": (metric.kind, metric.labels) for metric in METRICS}


def test_dashboard_has_what_grafana_needs_to_import_it():
    dashboard = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    assert dashboard["uid"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert all({"title", "type", "gridPos", "datasource"} <= panel.keys() for panel in dashboard["panels"])
    (source,) = [variable for variable in dashboard["templating"]["list"] if variable["type"] == "datasource"]
    assert {panel["datasource"]["uid"] for panel in dashboard["panels"]} == {f"${{{source['name']}}}"}


def test_prometheus_scrapes_the_ports_that_the_cluster_files_serve_metrics_on():
    documents = list(yaml.safe_load_all((FOLDER / "watch/prometheus.yaml").read_text(encoding="utf-8")))
    (monitor,) = [document for document in documents if document["kind"] == "PodMonitor"]
    (cluster,) = [
        document
        for document in yaml.safe_load_all((FOLDER / "kuberay/cluster.yaml").read_text(encoding="utf-8"))
        if document["kind"] == "RayCluster"
    ]
    port = cluster["spec"]["headGroupSpec"]["rayStartParams"]["metrics-export-port"]
    assert [str(end["portNumber"]) for end in monitor["spec"]["podMetricsEndpoints"]] == [port]
    (selector,) = monitor["spec"]["selector"]["matchExpressions"]
    assert selector["operator"] == "Exists"
    for group in (cluster["spec"]["headGroupSpec"], *cluster["spec"]["workerGroupSpecs"]):
        assert selector["key"] in group["template"]["metadata"]["labels"]
