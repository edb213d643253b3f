"""Rules for ``ray up`` files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from raysweep.cluster.check import rules
from raysweep.cluster.check.problem import Problem
from raysweep.cluster.check.reading import mapping, mappings, texts, value_at
from raysweep.cluster.check.schema import ray_up_schema, schema_problems

_CLOUDS = ("aws", "gcp", "azure")
_PUBLISHED = re.compile(r"^(?:-p|--publish)[= ]?(.*)|^(-P|--publish-all)$")


def check_ray_up(document: dict[str, Any], ray: str) -> Iterator[Problem]:
    """Yield what is wrong with a ray up file for a version of Ray."""
    yield from schema_problems(document, ray_up_schema(), f"Ray {ray}'s schema of ray up files")
    if not isinstance(document.get("provider"), dict):
        return
    yield from _network(document)
    yield from _container(document, ray)
    yield from _token(document)
    yield from _commands(document)


def _network(document: dict[str, Any]) -> Iterator[Problem]:
    provider = document["provider"]
    cloud = provider.get("type")
    if cloud in _CLOUDS and provider.get("use_internal_ips") is not True:
        yield Problem(
            "provider.use_internal_ips",
            str(provider.get("use_internal_ips", "")),
            "machines would have public addresses. Allowed: true, with auth.ssh_proxy_command to reach them",
        )
    if cloud == "azure" and provider.get("use_external_head_ip"):
        yield Problem("provider.use_external_head_ip", "true", "the head would have a public address. Allowed: false")
    for number, permission in enumerate(mappings(value_at(provider, "security_group", "IpPermissions"))):
        ranges = [entry.get("CidrIp") or entry.get("CidrIpv6") for entry in _ranges(permission)]
        for cidr in ranges:
            if cidr in rules.PUBLIC:
                yield Problem(
                    f"provider.security_group.IpPermissions[{number}]",
                    str(cidr),
                    "opens a port to everybody; name a range",
                )
    for name, node in mapping(document.get("available_node_types")).items():
        yield from _node(cloud, f"available_node_types.{name}.node_config", mapping(value_at(node, "node_config")))


def _ranges(permission: dict[str, Any]) -> list[dict[str, Any]]:
    return [*mappings(permission.get("IpRanges")), *mappings(permission.get("Ipv6Ranges"))]


def _node(cloud: Any, key: str, config: dict[str, Any]) -> Iterator[Problem]:
    interfaces = mappings(config.get("NetworkInterfaces"))
    if cloud == "aws" and "SecurityGroupIds" not in config and not any("Groups" in entry for entry in interfaces):
        yield Problem(
            f"{key}.SecurityGroupIds",
            "",
            "missing: Ray would make a group of its own that lets the whole Internet reach port 22. Give the id of a "
            "group that lets in its own members alone",
        )
    if any(entry.get("AssociatePublicIpAddress") for entry in interfaces):
        yield Problem(f"{key}.NetworkInterfaces", "AssociatePublicIpAddress", "a public address; leave it out")
    if cloud == "gcp":
        interfaces = mappings(config.get("networkInterfaces"))
        if not interfaces or any(entry.get("accessConfigs") for entry in interfaces):
            yield Problem(
                f"{key}.networkInterfaces",
                "accessConfigs" if interfaces else "",
                "Google Cloud gives a public address to interfaces with accessConfigs, and Ray to machines without "
                "networkInterfaces. Name a subnetwork, without accessConfigs",
            )


def _container(document: dict[str, Any], ray: str) -> Iterator[Problem]:
    docker = mapping(document.get("docker"))
    names = [key for key in ("image", "head_image", "worker_image") if docker.get(key)]
    if not names:
        yield Problem(
            "docker.image", "", f"missing: without an image nothing says that all nodes have Ray {ray} and raysweep"
        )
    for key in names:
        yield from rules.image(f"docker.{key}", str(docker[key]), ray)
    options = _run_options(document)
    for option in options:
        if match := _PUBLISHED.match(option):
            yield Problem("docker.run_options", option, f"publishes ports of the container ({match[0]}); leave it out")
    yield from _grace(options)
    uri = _environment(options).get("RAYSWEEP_STORE")
    shared = texts(value_at(document, "metadata", "shared_folders"))
    if uri is None:
        yield Problem("docker.run_options", "", "says no store: add --env=RAYSWEEP_STORE=s3://bucket/prefix")
    else:
        how = "name the folder that all machines mount under metadata.shared_folders"
        yield from rules.store("docker.run_options.RAYSWEEP_STORE", uri, shared, how)


def _grace(options: list[str]) -> Iterator[Problem]:
    given = next((option for option in options if option.startswith("--stop-timeout")), "")
    seconds = re.search(r"\d+", given)
    if seconds is None or int(seconds[0]) < rules.MIN_GRACE_S:
        yield Problem(
            "docker.run_options",
            given,
            f"a stage needs {rules.MIN_GRACE_S} s to save when its machine goes; add --stop-timeout=120",
        )


def _run_options(document: dict[str, Any]) -> list[str]:
    docker = mapping(document.get("docker"))
    keys = ("run_options", "head_run_options", "worker_run_options")
    return [option for key in keys for option in texts(docker.get(key))]


def _environment(options: list[str]) -> dict[str, str]:
    found = {}
    for option in options:
        if match := re.match(r"(?:--env|-e)[= ]\s*(\w+)=(.*)", option):
            found[match[1]] = match[2].strip("\"'")
    return found


def _token(document: dict[str, Any]) -> Iterator[Problem]:
    environment = _environment(_run_options(document))
    keys = ("head_start_ray_commands", "worker_start_ray_commands")
    starts = [text for key in keys for text in texts(document.get(key)) if "ray start" in text]
    in_commands = bool(starts) and all("RAY_AUTH_MODE=token" in text for text in starts)
    mode = environment.get("RAY_AUTH_MODE", "token" if in_commands else None)
    yield from rules.token_mode("docker.run_options", mode, "Add --env=RAY_AUTH_MODE=token")
    mounts = mapping(document.get("file_mounts"))
    path = environment.get("RAY_AUTH_TOKEN_PATH")
    if not any(str(there).endswith(".ray/auth_token") or there == path for there in mounts):
        yield Problem(
            "file_mounts",
            "",
            "the nodes get no token; add /home/ray/.ray/auth_token: ~/.ray/auth_token, which "
            "`ray get-auth-token --generate` writes",
        )


def _commands(document: dict[str, Any]) -> Iterator[Problem]:
    for key, commands in document.items():
        if str(key).endswith("commands"):
            for number, command in enumerate(texts(commands)):
                yield from rules.dashboard_host(f"{key}[{number}]", command)
    for key in ("head_start_ray_commands", "worker_start_ray_commands"):
        if key not in document:
            yield Problem(key, "", "missing: Ray's default starts the dashboard on 0.0.0.0; say how Ray starts")
