"""Rules that every kind of cluster file must keep."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from raysweep.cluster.check.problem import Problem
from raysweep.secrecy import MASK, find_secrets

MIN_GRACE_S = 60
"""Seconds that a stage must have between being told to stop and being killed."""

PUBLIC = ("0.0.0.0/0", "::/0", "*", "Internet")
"""Ranges of addresses that are everybody."""

_NODE_LOCAL = ("/tmp", "/var", "/dev", "/run", "/local", "/home/ray")
_PLACEHOLDERS = re.compile(
    r"my-bucket|my-project|[\w.-]*example\.org[\w./:-]*|123456789012|\w+-0123456789abcdef0|192\.0\.2\.\d+"
)


def secrets(text: str) -> Iterator[Problem]:
    """Refuse secrets that are written out."""
    for secret in find_secrets(text):
        line = text.count("\n", 0, secret.begin) + 1
        yield Problem(
            f"line {line}",
            MASK,
            f"looks like {secret.what}; a file is copied and committed. Take it from a secret of the cluster, from the "
            "environment, or give machines a role, and revoke it if anyone saw it",
        )


def image(key: str, name: str, ray: str) -> Iterator[Problem]:
    """Ask for an image that is pinned, with the Ray that is installed here."""
    tag = name.rsplit("/", 1)[-1].partition("@")[0].partition(":")[2]
    if "@sha256:" in name and not tag:
        return  # pinned as hard as can be; which Ray it holds its name cannot say
    if tag in ("", "latest", "nightly"):
        yield Problem(key, name, f"an image that changes under its name; pin a tag that names Ray {ray}, or a digest")
    elif not re.search(rf"(?<![\d.]){re.escape(ray)}(?![\d]|\.\d)", tag):
        yield Problem(
            key, name, f"its tag does not name Ray {ray}, which is installed here and which all nodes must have"
        )


def store(key: str, uri: str, shared_folders: Iterable[str], how: str) -> Iterator[Problem]:
    """Ask for a store that every node reaches: a remote URI, or a folder below one that is shared."""
    if "://" in uri and not uri.startswith("file://"):
        return
    path = uri.removeprefix("file://").rstrip("/")
    if not any(path == folder.rstrip("/") or path.startswith(folder.rstrip("/") + "/") for folder in shared_folders):
        yield Problem(
            key, uri, f"a folder that each node has for itself; {how}, or give a URI such as s3://bucket/prefix"
        )


def is_node_local(path: str) -> bool:
    """Whether a path is one that nodes do not share."""
    return any(path == folder or path.startswith(folder + "/") for folder in _NODE_LOCAL) or "TMPDIR" in path


def dashboard_host(key: str, command: str) -> Iterator[Problem]:
    """Refuse a dashboard that listens on all addresses of its machine."""
    match = re.search(r"--dashboard-host[= ]['\"]?(0\.0\.0\.0|::)", command)
    if match:
        yield Problem(
            key,
            match[0],
            "the dashboard, which runs any code it is sent, would listen on every address of the head. Allowed: "
            "127.0.0.1; reach it through `ray dashboard FILE` or ssh -L 8265:127.0.0.1:8265",
        )


def token_mode(key: str, environment: str | None, how: str) -> Iterator[Problem]:
    """Ask for Ray's token authentication."""
    if environment != "token":
        yield Problem(
            key,
            environment or "",
            f"Ray's token authentication is off: whoever reaches a port of the cluster runs code on it. {how}",
        )


def to_fill_in(text: str) -> tuple[str, ...]:
    """Return the placeholders that are still in a file, with their lines."""
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        for match in _PLACEHOLDERS.finditer(line.partition(" #")[0]):
            found.setdefault(match[0], number)
    return tuple(f"line {number}: {name}" for name, number in found.items())
