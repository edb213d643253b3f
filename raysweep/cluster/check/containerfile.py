"""Rules for the container image."""

from __future__ import annotations

import re
from collections.abc import Iterator

from raysweep.cluster.check.problem import Problem

_RAY_PORTS = ("6379", "8265", "10001")


def check_containerfile(text: str) -> Iterator[Problem]:
    """Yield what is wrong with a Containerfile."""
    lines = re.sub(r"\\\n", " ", text).splitlines()
    steps = [(word.upper(), rest.strip()) for word, _, rest in (line.strip().partition(" ") for line in lines)]
    stages: set[str] = {"scratch"}
    for word, rest in steps:
        if word == "FROM":
            base, _, stage = rest.partition(" AS ")
            tag = base.rsplit("/", 1)[-1].partition(":")[2]
            if base not in stages and "@sha256:" not in base and tag in ("", "latest"):
                yield Problem("FROM", base, "an image that changes under its name; pin a version or a digest")
            stages.add(stage.strip())
        if word == "EXPOSE" and any(port in rest.split() for port in _RAY_PORTS):
            yield Problem("EXPOSE", rest, "Ray's ports are for the cluster alone; leave it out")
        if word == "RUN" and re.search(r"(curl|wget)[^|]*\|\s*(ba)?sh", rest):
            yield Problem("RUN", rest, "runs what the network sends; install packages with hashes")
    users = [rest for word, rest in steps if word == "USER"]
    if not users or users[-1].partition(":")[0] in ("root", "0"):
        yield Problem("USER", users[-1] if users else "", "the image would run as root; end with USER ray")
    installs = [rest for word, rest in steps if word == "RUN" and re.search(r"\bpip install\b", rest)]
    if installs and not any("--require-hashes" in rest for rest in installs):
        yield Problem(
            "RUN pip install", installs[0], "no hashes: install with --require-hashes --requirement requirements.lock"
        )
