"""Filling in cluster files: what options change, and what is refused."""

from __future__ import annotations

import importlib.metadata

import pytest
import yaml

from raysweep.cluster import KINDS, render
from raysweep.cluster.check import check_text
from raysweep.cluster.options import ClusterOptions
from raysweep.errors import ClusterError
from tests.unit.cluster.shipped import ROOT


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


def documents(kind: str, **options) -> dict:
    return {document["kind"]: document for document in yaml.safe_load_all(render(kind, options))}


def test_spot_and_on_demand_gpus_are_groups_that_sum_to_all_gpus():
    types = yaml.safe_load(render("aws", {"gpus": 24, "gpu_type": "h100", "spot": True, "on_demand": 8, "workers": 3}))[
        "available_node_types"
    ]
    nodes = {name: (kind["max_workers"], kind["resources"]) for name, kind in types.items()}
    assert nodes == {
        "head": (0, {"CPU": 0}),
        "gpu": (1, {"CPU": 192, "GPU": 8}),
        "gpu-spot": (2, {"CPU": 192, "GPU": 8}),
        "cpu": (3, {"CPU": 8}),
    }
    assert types["gpu-spot"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in types["gpu"]["node_config"]
    assert types["gpu-spot"]["node_config"]["SecurityGroupIds"] == types["head"]["node_config"]["SecurityGroupIds"]


def test_without_gpus_there_are_nodes_without_one():
    groups = documents("kuberay-cluster", gpus=0)["RayCluster"]["spec"]["workerGroupSpecs"]
    assert [(group["groupName"], group["maxReplicas"]) for group in groups] == [("cpu", 2)]
    assert "nvidia.com/gpu" not in str(groups)


def test_gpu_type_and_spot_label_choose_kubernetes_nodes():
    options = {"gpu_type": "NVIDIA-L4", "spot": True, "spot_label": "eks.amazonaws.com/capacityType=SPOT"}
    (group,) = documents("kuberay-cluster", **options)["RayCluster"]["spec"]["workerGroupSpecs"]
    spec = group["template"]["spec"]
    assert spec["nodeSelector"] == {"nvidia.com/gpu.product": "NVIDIA-L4", "eks.amazonaws.com/capacityType": "SPOT"}
    assert {"key": "eks.amazonaws.com/capacityType", "operator": "Equal", "value": "SPOT", "effect": "NoSchedule"} in (
        spec["tolerations"]
    )


def test_credentials_come_from_a_secret_by_name():
    (group,) = documents("kuberay-cluster", secret="s3-keys")["RayCluster"]["spec"]["workerGroupSpecs"]
    assert group["template"]["spec"]["containers"][0]["envFrom"] == [{"secretRef": {"name": "s3-keys"}}]


def test_job_carries_the_study_that_it_runs(tmp_path):
    study = tmp_path / "mine.yaml"
    study.write_text((ROOT / "search_spaces/quickstart.yaml").read_text() + "\nresources: {finetune: {gpus: 0.25}}\n")
    found = documents("kuberay-job", study=str(study), store="s3://bucket/a")
    assert yaml.safe_load(found["ConfigMap"]["data"]["study.yaml"]) == yaml.safe_load(study.read_text())
    mounts = found["RayJob"]["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0][
        "volumeMounts"
    ]
    assert f"{mounts[0]['mountPath']}/study.yaml" in found["RayJob"]["spec"]["entrypoint"]


@pytest.mark.parametrize(
    ("resources", "words"),
    [
        ("{pretrain: {gpus: 2}}", "--gpus-per-node"),
        ("{finetune: {cpus: 64}}", "--cpus"),
        ("{pretrain: {memory_gb: 99}}", "--memory-gb"),
    ],
)
def test_study_that_asks_more_than_a_node_has_is_refused(tmp_path, resources, words):
    study = tmp_path / "mine.yaml"
    study.write_text((ROOT / "search_spaces/quickstart.yaml").read_text() + f"\nresources: {resources}\n")
    with pytest.raises(ClusterError, match=words):
        render("kuberay-job", {"study": str(study)})


def test_study_that_names_files_beside_it_is_refused(tmp_path):
    study = tmp_path / "mine.yaml"
    text = (ROOT / "search_spaces/quickstart.yaml").read_text()
    pack = "{dataset: synthetic-dead-leaves, options: {images: 384, size: 96}}"
    assert pack in text
    study.write_text(text.replace(pack, "{file: leaves.h5}"))
    with pytest.raises(ClusterError, match=r"packs\.leaves\.file: 'leaves\.h5': relative to the study's folder"):
        render("kuberay-job", {"study": str(study)})
    study.write_text(text.replace(pack, "{file: s3://bucket/leaves.h5}"))
    assert "s3://bucket/leaves.h5" in render("kuberay-job", {"study": str(study)})


def test_slurm_mixes_partitions_in_one_allocation():
    text = render("slurm", {"gpus": 16, "gpus_per_node": 4, "gpu_type": "a100", "workers": 1, "cpu_partition": "cpu"})
    lines = [line for line in text.splitlines() if line.startswith("#SBATCH")]
    assert (
        lines.index("#SBATCH --partition=cpu") < lines.index("#SBATCH hetjob") < lines.index("#SBATCH --partition=gpu")
    )
    assert "#SBATCH --gpus-per-node=a100:4" in lines
    assert "--nodes=4 --ntasks=4 --het-group=1" in text
    assert check_text(text, "study.sh").problems == ()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("store", ["s3://bucket/prefix", "/mnt/store"])
def test_every_kind_renders_what_passes_the_check(kind, store):
    options = {"store": store} if "store" in KINDS[kind].options else {}
    text = render(kind, options)
    assert [str(problem) for problem in check_text(text, KINDS[kind].file.rsplit("/")[-1]).problems] == []


def test_image_names_the_ray_that_is_installed():
    assert ClusterOptions().image.endswith(f"-ray{importlib.metadata.version('ray')}")


@pytest.mark.parametrize(
    ("kind", "options", "words"),
    [
        ("kuberay", {}, "there is no kind 'kuberay'.*Did you mean"),
        ("slurm", {"namespace": "a"}, "--namespace says nothing to the kind slurm; it takes --account"),
        ("aws", {"gpu_type": "A10"}, "no machine of aws.*A10G.*Did you mean 'A100'|'A10G'"),
        ("aws", {"gpu_type": "H100", "gpus_per_node": 4, "gpus": 8}, "have 8 of them"),
        ("aws", {"gpus": 7, "gpus_per_node": 8}, "no multiple of the 8"),
        ("aws", {"on_demand": 2}, "unless --spot is given"),
        ("aws", {"gpus": 0, "spot": True}, "--gpus is 0"),
        ("aws", {"gpus": -1}, "--gpus -1: must be at least 0"),
        ("aws", {"name": "Heart"}, "lower-case letters"),
        ("aws", {"store": "s3://a b", "image": "x;y"}, "(?s)--store 's3://a b'.*--image 'x;y'"),
        ("slurm", {"partition": "gpu\n#SBATCH --uid=0"}, "--partition"),
        ("slurm", {"workers": 1}, "--cpu-partition"),
        ("kuberay-cluster", {"spot_label": "spot"}, "KEY=VALUE"),
        ("on-premise", {"host": ("10.0.0.1", "10.0.0.2; rm")}, "--host"),
    ],
)
def test_wrong_options_are_named(kind, options, words):
    with pytest.raises(ClusterError, match=words):
        render(kind, options)


def test_study_with_a_secret_is_not_rendered(tmp_path):
    study = tmp_path / "mine.yaml"
    text = (ROOT / "search_spaces/quickstart.yaml").read_text()
    study.write_text(text.replace("study: quickstart", "study: quickstart\n# AKIAABCDEFGHIJKLMNOP"))
    with pytest.raises(Exception, match="looks like a secret") as caught:
        render("kuberay-job", {"study": str(study)})
    assert "AKIAABCD" not in str(caught.value)
