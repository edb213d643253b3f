"""Runs a study on two hosts: network namespaces joined by one cable, each with folders of its own, and S3 between them.

Needs root, for the namespaces. Nothing in them reaches any other network. Usage:
python -m tests.integration.separate_hosts STUDY FOLDER
"""

from __future__ import annotations

import hashlib
import os
import secrets
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

_HOSTS = {"head": "10.77.0.1", "worker": "10.77.0.2"}
_RAY_PORT, _S3_PORT = 6377, 5077
_KEYS = {"AWS_ACCESS_KEY_ID": "raysweep", "AWS_SECRET_ACCESS_KEY": "only-for-tests"}
_TOKEN = secrets.token_hex(32)


def store_uri() -> str:
    """Return the store's URI as both hosts see it."""
    return f"s3://raysweep-hosts/store?region=us-east-1&endpoint=http://{_HOSTS['head']}:{_S3_PORT}"


def _name(host: str) -> str:
    return f"rs{os.getpid()}{host[0]}"


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


def _join() -> None:
    """Create the namespaces and the cable between them."""
    for host in _HOSTS:
        _ip("netns", "add", _name(host))
    ends = {host: f"v{os.getpid()}{host[0]}" for host in _HOSTS}
    _ip("link", "add", ends["head"], "type", "veth", "peer", "name", ends["worker"])
    for host, address in _HOSTS.items():
        _ip("link", "set", ends[host], "netns", _name(host))
        _ip("-n", _name(host), "addr", "add", f"{address}/24", "dev", ends[host])
        _ip("-n", _name(host), "link", "set", ends[host], "up")
        _ip("-n", _name(host), "link", "set", "lo", "up")


def _start(host: str, folder: Path, *command: str) -> subprocess.Popen[bytes]:
    """Start a command on a host, with the host's own name, Ray folder and cache of packs."""
    own = folder / host
    (own / "tmp").mkdir(parents=True, exist_ok=True)
    script = f'hostname {host} && mkdir -p /tmp/ray && mount --bind "{own}/tmp" /tmp/ray && exec "$@"'
    environment = {**os.environ, **_KEYS, "OMP_NUM_THREADS": "1", "RAYSWEEP_CACHE": str(own / "cache")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": _TOKEN}  # hosts share no file that could hold one
    environment |= {"RAY_USAGE_STATS_ENABLED": "0", "no_proxy": ",".join(_HOSTS.values())}
    words = ["ip", "netns", "exec", _name(host), "unshare", "--mount", "--uts", "sh", "-c", script, "sh", *command]
    with (own / "log.txt").open("ab") as log:
        return subprocess.Popen(words, env=environment, stdout=log, stderr=subprocess.STDOUT)


def _on_head(folder: Path, *command: str) -> bool:
    return _start("head", folder, *command).wait(timeout=60) == 0


def _wait_until(condition: Callable[[], bool], timeout_s: float = 120) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(1)


def _end() -> None:
    """End what runs on the hosts, and delete them."""
    for host in _HOSTS:
        for _ in range(3):
            found = subprocess.run(["ip", "netns", "pids", _name(host)], capture_output=True, text=True, check=False)
            for process in map(int, found.stdout.split()):
                os.kill(process, signal.SIGKILL)
            time.sleep(0.2)
        subprocess.run(["ip", "netns", "del", _name(host)], check=False)


def serve(bucket: str) -> None:
    """Serve S3 on the head's address, with one bucket."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=_HOSTS["head"], port=_S3_PORT, verbose=False)
    server.start()
    address = f"http://{_HOSTS['head']}:{_S3_PORT}/{bucket}"
    with urllib.request.urlopen(urllib.request.Request(address, method="PUT")):
        pass
    signal.pause()


def main(study: str, folder: Path) -> int:
    """Run the study and write down its facts; return the driver's code."""
    python, ray = sys.executable, str(Path(sys.executable).with_name("ray"))
    here = [python, "-m", "tests.integration.separate_hosts"]
    try:
        _join()
        _start("head", folder, *here, "serve", "raysweep-hosts")
        address = f"{_HOSTS['head']}:{_RAY_PORT}"
        common = ["--object-store-memory", "100000000", "--disable-usage-stats", "--block"]
        _start("head", folder, ray, "start", "--head", f"--node-ip-address={_HOSTS['head']}", f"--port={_RAY_PORT}",
               "--num-cpus=0", "--include-dashboard=false", *common)  # fmt: skip
        _wait_until(lambda: _on_head(folder, ray, "health-check", "--address", address))
        _start("worker", folder, ray, "start", f"--address={address}", f"--node-ip-address={_HOSTS['worker']}",
               "--num-cpus=2", *common)  # fmt: skip
        run = [python, "-m", "raysweep", "run", study, "--store", store_uri(), "--address", address, "--no-report"]
        code = _start("head", folder, *run).wait(timeout=500)
        return code or _start("head", folder, *here, "facts", str(folder / "facts.txt")).wait(timeout=60)
    finally:
        _end()


def write_facts(file: Path) -> None:
    """Write down a digest of the store's facts, and the hosts of its stages."""
    from raysweep.sweep import open_store
    from tests.facts import facts

    store = open_store(store_uri())
    hosts = sorted({row["host"] for row in store.query("SELECT host FROM stages").to_pylist()})
    file.write_text(f"{hashlib.sha256(repr(facts(store)).encode()).hexdigest()}\n{hosts}\n")


if __name__ == "__main__":
    words = sys.argv[1:]
    if words[0] == "serve":
        serve(words[1])
    elif words[0] == "facts":
        write_facts(Path(words[1]))
    else:
        sys.exit(main(words[0], Path(words[1])))
