"""Each rule of `raysweep cluster check`: a file of the repository with one thing changed breaks it, by name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from raysweep.cluster.check import check_file, check_text
from raysweep.errors import ClusterError
from tests.unit.cluster.shipped import FOLDER

IMAGE = "registry.example.org/raysweep:0.1.0-ray2.60.0"
AWS, GCP, AZURE, OWN = "aws/cluster.yaml", "gcp/cluster.yaml", "azure/cluster.yaml", "on-premise/nfs.yaml"
RAYS, JOB = "kuberay/cluster.yaml", "kuberay/job-volume-spot.yaml"
SLURM, SUBMIT, CONTAINER = "slurm/study.sh", "submit/submit.sh", "image/Containerfile"

# file, what is replaced, by what, the key and the words of the problem
BROKEN = [
    (AWS, "  use_internal_ips: true\n", "", "provider.use_internal_ips", "public addresses"),
    (AWS, "SecurityGroupIds: [sg-0123456789abcdef0]", "KeyName: mine", "node_config.SecurityGroupIds", "port 22"),
    (AWS, f"image: {IMAGE}", "image: rayproject/ray:latest", "docker.image", "changes under its name"),
    (AWS, f"image: {IMAGE}", "image: rayproject/ray:2.59.1-gpu", "docker.image", "does not name Ray 2.60.0"),
    (AWS, f"image: {IMAGE}", "image: rayproject/ray:12.60.0", "docker.image", "does not name Ray 2.60.0"),
    (AWS, f"image: {IMAGE}", "image: rayproject/ray:2.60.01", "docker.image", "does not name Ray 2.60.0"),
    (AWS, "    - --env=RAY_AUTH_MODE=token\n", "", "docker.run_options", "authentication is off"),
    (AWS, "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled", "docker.run_options", "authentication is off"),
    (AWS, "  /home/ray/.ray/auth_token: ~/.ray/auth_token\n", "", "file_mounts", "get no token"),
    (AWS, "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "head_start_ray_commands[1]", "runs any code"),
    (AWS, "--dashboard-host=127.0.0.1", "--dashboard-host '::'", "head_start_ray_commands[1]", "runs any code"),
    (AWS, "--stop-timeout=120", "--stop-timeout=10", "docker.run_options", "60 s to save"),
    (AWS, "    - --shm-size=4g", "    - --publish=8265:8265", "docker.run_options", "publishes ports"),
    (AWS, "s3://my-bucket/raysweep", "/data/store", "docker.run_options.RAYSWEEP_STORE", "each node has for itself"),
    (AWS, "idle_timeout_minutes", "idle_timeout_minute", "idle_timeout_minute", "Did you mean 'idle_timeout_minutes'?"),
    (AWS, "max_workers: 8\nupscaling", "max_workers: many\nupscaling", "max_workers", "must be of type integer"),
    (
        AWS,
        "  use_internal_ips: true",
        "  use_internal_ips: true\n  security_group: {IpPermissions: [{IpRanges: [{CidrIp: 0.0.0.0/0}]}]}",
        "provider.security_group.IpPermissions[0]",
        "opens a port to everybody",
    ),
    (AWS, "head_start_ray_commands", "head_setup", "head_start_ray_commands", "starts the dashboard on 0.0.0.0"),
    (
        GCP,
        "subnetworks/raysweep",
        "subnetworks/x\n          accessConfigs: [{type: ONE_TO_ONE_NAT}]",
        "networkInterfaces",
        "public",
    ),
    (
        AZURE,
        "  use_internal_ips: true",
        "  use_internal_ips: true\n  use_external_head_ip: true",
        "use_external_head_ip",
        "public",
    ),
    (
        OWN,
        "  shared_folders: [/mnt/raysweep/store]",
        "  shared_folders: [/mnt/other]",
        "RAYSWEEP_STORE",
        "shared_folders",
    ),
    (RAYS, "mode: token", "mode: disabled", "spec.authOptions.mode", "authentication is off"),
    (RAYS, "mode: token", "mode: tokens", "spec.authOptions.mode", "Did you mean 'token'?"),
    (RAYS, "serviceType: ClusterIP", "serviceType: LoadBalancer", "headGroupSpec.serviceType", "Allowed: ClusterIP"),
    (RAYS, "serviceType: ClusterIP", "serviceType: NodePort", "headGroupSpec.serviceType", "Allowed: ClusterIP"),
    (RAYS, "serviceType: ClusterIP", "enableIngress: true", "headGroupSpec.enableIngress", "publishes the dashboard"),
    (RAYS, "rayVersion: 2.60.0", "rayVersion: 2.55.1", "spec.rayVersion", "must be 2.60.0"),
    (RAYS, "kind: NetworkPolicy", "kind: Ingress", "Ingress raysweep: kind", "leads from outside"),
    (
        RAYS,
        "matchLabels: {raysweep: raysweep}\n  policy",
        "matchLabels: {a: b}\n  policy",
        "networkPolicy",
        "every pod",
    ),
    (
        RAYS,
        "terminationGracePeriodSeconds: 120",
        "terminationGracePeriodSeconds: 30",
        "GracePeriodSeconds",
        "60 s to save",
    ),
    (
        RAYS,
        "maxReplicas: 8",
        "maxReplicas: 8\n      maxReplica: 9",
        "workerGroupSpecs[0].maxReplica",
        "Did you mean 'maxReplicas'?",
    ),
    (
        RAYS,
        "          runAsNonRoot: true",
        "          runAsNonRoot: yes please",
        "runAsNonRoot",
        "must be of type boolean",
    ),
    (
        RAYS,
        'RAY_USAGE_STATS_ENABLED, value: "0"}',
        "AWS_SECRET_ACCESS_KEY, value: hunter2}",
        "AWS_SECRET_ACCESS_KEY",
        "secretKeyRef",
    ),
    (
        RAYS,
        "capabilities: {drop: [ALL]}",
        "privileged: true",
        "privileged",
        "no rights on the node",
    ),
    (
        RAYS,
        "name: ray-head",
        "ports: [{containerPort: 8265, hostPort: 8265}]\n            name: ray-head",
        "hostPort",
        "on the node",
    ),
    (RAYS, "      automountServiceAccountToken: true", "      hostNetwork: true", "hostNetwork", "onto the node"),
    (RAYS, '"s3://my-bucket/raysweep"', "/store", "env.RAYSWEEP_STORE", "ReadWriteMany"),
    (JOB, "accessModes: [ReadWriteMany]", "accessModes: [ReadWriteOnce]", "env.RAYSWEEP_STORE", "ReadWriteMany"),
    (
        JOB,
        "persistentVolumeClaim: {claimName: raysweep-store}",
        "emptyDir: {}",
        "env.RAYSWEEP_STORE",
        "each node has for itself",
    ),
    (JOB, "shutdownAfterJobFinishes: true", "shutdownAfterJobFinishes: false", "spec.shutdownAfterJobFinishes", "cost"),
    (JOB, "  entrypoint: ", "  entryPoint: ", "spec.entryPoint", "Did you mean 'entrypoint'?"),
    (
        JOB,
        "kind: ServiceAccount",
        "kind: Service\nspec: {type: NodePort}",
        "Service raysweep: spec.type",
        "Allowed: ClusterIP",
    ),
    (JOB, "kind: ServiceAccount", "kind: Secret\nstringData: {key: abc}", "Secret raysweep: data", "written out"),
    (SLURM, "#SBATCH --requeue\n", "", "#SBATCH --requeue", "would not run again"),
    (SLURM, "#SBATCH --no-kill\n", "#SBATCH --array=0-9\n", "#SBATCH --array", "one allocation"),
    (SLURM, "B:USR1@300", "USR1@600", "#SBATCH --signal", "told before time is up"),
    (SLURM, "B:USR1@300", "B:USR1@20", "#SBATCH --signal", "60 s to save"),
    (SLURM, "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=disabled", "RAY_AUTH_MODE", "authentication is off"),
    (SLURM, "RAY_AUTH_MODE=token", "RAY_AUTH_MODE=token RAY_AUTH_TOKEN=abc", "RAY_AUTH_TOKEN", "a token written out"),
    (SLURM, "RAYSWEEP_STORE=s3://my-bucket/raysweep", "RAYSWEEP_STORE=/tmp/store", "RAYSWEEP_STORE", "each node"),
    (SLURM, "trap end EXIT", "ray stop", "ray stop", "other jobs"),
    (SLURM, "trap end EXIT", "if true; then", "bash -n", "syntax error"),
    (SUBMIT, "http://127.0.0.1:8265", "http://ray.example.org:8265", "--address", "unencrypted"),
    (SUBMIT, "http://127.0.0.1:8265", "http://127.0.0.1.example.org", "--address", "unencrypted"),
    (CONTAINER, "FROM docker.io/library/python:3.11.13-slim-bookworm", "FROM python", "FROM", "changes under its name"),
    (CONTAINER, "USER ray", "USER root", "USER", "run as root"),
    (CONTAINER, "--require-hashes ", "", "RUN pip install", "no hashes"),
    (CONTAINER, "WORKDIR /home/ray", "EXPOSE 8265", "EXPOSE", "for the cluster alone"),
]


@pytest.mark.parametrize(
    ("file", "old", "new", "key", "words"), BROKEN, ids=[f"{b[0]}-{i}" for i, b in enumerate(BROKEN)]
)
def test_rule_is_enforced(file, old, new, key, words):
    text = (FOLDER / file).read_text(encoding="utf-8")
    assert old in text
    problems = [str(problem) for problem in check_text(text.replace(old, new), Path(file).name).problems]
    assert any(key in problem and words in problem for problem in problems), problems


def test_secret_that_is_written_out_is_named_and_not_shown():
    text = (FOLDER / AWS).read_text(encoding="utf-8") + "# AKIAABCDEFGHIJKLMNOP\n"
    (problem,) = [str(problem) for problem in check_text(text, "cluster.yaml").problems]
    assert f"line {text.count(chr(10))}" in problem
    assert "AKIAABCD" not in problem


def test_digest_pins_an_image():
    text = (FOLDER / AWS).read_text(encoding="utf-8").replace(IMAGE, "registry.example.org/raysweep@sha256:" + "0" * 64)
    assert check_text(text, "cluster.yaml").problems == ()


def test_token_of_a_secret_does_without_the_operators_options():
    """Operators before 1.6 take the token from the environment alone."""
    documents = list(yaml.safe_load_all((FOLDER / RAYS).read_text(encoding="utf-8")))
    spec = documents[-1]["spec"]
    del spec["authOptions"]
    assert any("authentication is off" in str(problem) for problem in problems_of(documents))
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        group["template"]["spec"]["containers"][0]["env"] += [
            {"name": "RAY_AUTH_MODE", "value": "token"},
            {"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": {"name": "ray", "key": "token"}}},
        ]
    assert problems_of(documents) == []


def problems_of(documents: list[dict]) -> list[str]:
    """Return what is wrong with the documents of a manifest."""
    return [str(problem) for problem in check_text(yaml.safe_dump_all(documents), "cluster.yaml").problems]


def test_placeholders_are_named_with_their_lines():
    found = check_file(FOLDER / AWS).to_fill_in
    assert any(entry.endswith(": sg-0123456789abcdef0") for entry in found)
    assert check_text((FOLDER / SLURM).read_text().replace("my-bucket", "heart"), "study.sh").to_fill_in == ()


@pytest.mark.parametrize(
    ("text", "words"), [("a: 1", "is no cluster file"), ("a: [", "is no YAML"), ("", "no cluster file")]
)
def test_other_files_are_refused(tmp_path, text, words):
    path = tmp_path / "some.yaml"
    path.write_text(text)
    with pytest.raises(ClusterError, match=words):
        check_file(path)


def test_manifest_without_rays_kinds_is_refused():
    problems = check_text("apiVersion: v1\nkind: Pod\nmetadata: {name: a}", "pod.yaml").problems
    assert "holds none of RayCluster, RayJob" in str(problems[0])
