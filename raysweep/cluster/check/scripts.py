"""Rules for shell scripts: jobs of Slurm, and submission to a Ray cluster."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator

from raysweep.cluster.check import rules
from raysweep.cluster.check.problem import Problem

_COMMENT = re.compile(r"(?m)^\s*#(?!SBATCH).*$")


def check_slurm(text: str) -> Iterator[Problem]:
    """Yield what is wrong with a Slurm job that runs a study."""
    yield from _syntax(text)
    options = _sbatch(text)
    if "array" in options:
        yield Problem("#SBATCH --array", options["array"], "one allocation runs the whole study; leave it out")
    for name, why in {
        "requeue": "a job that is preempted, or whose node fails, would not run again. Add #SBATCH --requeue",
        "no-kill": "one lost node would end the whole allocation. Add #SBATCH --no-kill",
        "time": "without a limit of its own the job gets the partition's. Add #SBATCH --time=24:00:00",
    }.items():
        if name not in options:
            yield Problem(f"#SBATCH --{name}", "", f"missing: {why}")
    yield from _signal(options.get("signal"))
    code = _COMMENT.sub("", text)
    yield from _token(code)
    if re.search(r"(?m)^[^#\n]*\bray stop\b", code):
        yield Problem(
            "ray stop", "ray stop", "ends every Ray of yours on a node, also those of your other jobs; end srun"
        )
    yield from rules.dashboard_host("ray start", code)
    stored = re.search(r"(?:RAYSWEEP_STORE=|--store[= ])[\"']?([^\s\"']+)", code)
    if stored is None:
        yield Problem("RAYSWEEP_STORE", "", "says no store: export RAYSWEEP_STORE=/folder/that/all/nodes/see")
    elif rules.is_node_local(stored[1]):
        yield Problem(
            "RAYSWEEP_STORE", stored[1], "a folder that each node has for itself; give one that all nodes see"
        )


def check_submit(text: str) -> Iterator[Problem]:
    """Yield what is wrong with a script that submits a study."""
    yield from _syntax(text)
    code = _COMMENT.sub("", text)
    yield from _token(code)
    for address in re.findall(r"http://[^\s\"'}]+", code):
        if not re.match(r"http://(127\.0\.0\.1|localhost|\[::1\])([:/]|$)", address):
            yield Problem(
                "--address",
                address,
                "the token would travel unencrypted. Allowed: http://127.0.0.1:8265 at the end of a tunnel, or https",
            )


def _sbatch(text: str) -> dict[str, str]:
    """Return the options of all #SBATCH lines by long name."""
    pairs = re.findall(r"(?m)^#SBATCH\s+--([\w-]+)(?:[= ](\S+))?", text)
    short = {"-t": "time", "-a": "array"}
    pairs += [(short[flag], value) for flag, value in re.findall(r"(?m)^#SBATCH\s+(-[ta])\s+(\S+)", text)]
    return dict(pairs)


def _signal(given: str | None) -> Iterator[Problem]:
    match = re.fullmatch(r"(?:R?B:)(?:SIG)?(\w+)@(\d+)", given or "")
    if match is None:
        yield Problem(
            "#SBATCH --signal",
            given or "",
            "the script must be told before time is up, so that stages save: #SBATCH --signal=B:USR1@300",
        )
    elif int(match[2]) < rules.MIN_GRACE_S:
        yield Problem(
            "#SBATCH --signal", str(given), f"a stage needs {rules.MIN_GRACE_S} s to save, better five minutes"
        )


def _token(code: str) -> Iterator[Problem]:
    mode = re.search(r"RAY_AUTH_MODE=[\"']?(\w+)", code)
    yield from rules.token_mode("RAY_AUTH_MODE", mode[1] if mode else None, "Add export RAY_AUTH_MODE=token")
    inline = re.search(r"RAY_AUTH_TOKEN=[\"']?([^\s\"'$][^\s\"']*)", code)
    if inline:
        yield Problem(
            "RAY_AUTH_TOKEN", "***", "a token written out; let RAY_AUTH_TOKEN_PATH name a file that only you read"
        )


def _syntax(text: str) -> Iterator[Problem]:
    bash = shutil.which("bash")
    if bash is None:
        return
    done = subprocess.run([bash, "-n"], input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        yield Problem("bash -n", "", done.stderr.strip().replace(f"{bash}: ", ""))
