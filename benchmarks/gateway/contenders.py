"""The processes that are measured: the upstream alone, nginx, bare aiohttp, Gatehouse, LiteLLM's proxy."""

from __future__ import annotations

import atexit
import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
KEY = "sk-gatehouse-benchmark"
LITELLM_LOCK = HERE / "litellm.txt"
LITELLM = ROOT / ".cache/benchmarks/litellm"
START_S = 300
NGINX = """\
worker_processes 1; daemon off; error_log /dev/null; pid {folder}/nginx.pid;
events {{ worker_connections 16384; }}
http {{
  access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 1000000000; client_body_buffer_size 64k;
  upstream model {{ server 127.0.0.1:{upstream}; keepalive 1024; keepalive_requests 1000000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=16384;
    proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
    location / {{ proxy_pass http://model; }}
  }}
}}
"""


class Process:
    """A process on one processor, that ends with the benchmark.

    Args:
        command: What to start.
        cpu: Which processor it gets, or None for any.
        environment: Beside this process's own.
        tells_port: Whether its first line is its port.
    """

    def __init__(self, command: list[str], cpu: int | None, environment: dict[str, str], *, tells_port: bool) -> None:
        self.log = tempfile.NamedTemporaryFile(prefix="gatehouse-benchmark-")  # noqa: SIM115 - lives as long as it
        out = subprocess.PIPE if tells_port else self.log
        given = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
        self.process = subprocess.Popen(command, cwd=ROOT, env=given, stdout=out, stderr=self.log, text=True)
        atexit.register(self.stop)
        self.cpu = cpu
        if tells_port:
            assert self.process.stdout is not None
            line = self.process.stdout.readline()
            if not line.strip().isdigit():
                raise SystemExit(f"{command[-1]} did not start:\n{self.said()}")
            self.port = int(line)
            self.pin()

    def pin(self) -> None:
        """Keep it, its threads and its children on its processor; called once it is up, starting needs more."""
        if self.cpu is None:
            return
        process = psutil.Process(self.process.pid)
        for each in (process, *process.children(recursive=True)):
            for thread in each.threads():
                os.sched_setaffinity(thread.id, {self.cpu})

    def said(self) -> str:
        """Return the end of its log."""
        return Path(self.log.name).read_text(errors="replace")[-3000:]

    def resident_mib(self) -> float:
        """Return its resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS")) / 1024

    def cpu_s(self) -> float:
        """Return the processor time that it took so far."""
        process = psutil.Process(self.process.pid)
        times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
        return sum(each.user + each.system for each in times)

    def stop(self) -> None:
        """End it, if it has not ended."""
        self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Contender(Process):
    """A server that answers chat completions on `port`."""

    def __init__(self, name: str, command: list[str], cpu: int | None, port: int, **environment: str) -> None:
        super().__init__(command, cpu, environment, tells_port=not port)
        self.name = name
        self.port = port or self.port
        self._wait()
        self.pin()

    def _wait(self) -> None:
        ends = time.monotonic() + START_S
        while time.monotonic() < ends:
            if self.process.poll() is not None:
                break
            try:
                if ask(self.port, "Are you there?")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.2)
        raise SystemExit(f"{self.name} does not answer:\n{self.said()}")


def ask(port: int, text: str, *, model: str = "bench") -> tuple[int, dict[str, str]]:
    """Ask once; return status and headers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    body = json.dumps(
        {"model": model, "user": "always-the-same", "temperature": 0, "messages": [{"role": "user", "content": text}]}
    )
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", body, headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status, {name.lower(): value for name, value in answer.getheaders()}


def get(port: int, path: str) -> bytes:
    """Get one page."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request("GET", path)
    content = connection.getresponse().read()
    connection.close()
    return content


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def upstream(cpu: int | None) -> Process:
    """Start the zero-delay upstream."""
    return Process([sys.executable, "-m", "benchmarks.gateway.upstream"], cpu, {}, tells_port=True)


class Gatehouse(Contender):
    """Our gateway, with everything that serving.yaml beside this file declares."""

    def __init__(self, cpu: int | None, upstream_port: int, folder: Path) -> None:
        self.folder = folder
        self.private_port = free_port()
        port = free_port()
        command = [
            sys.executable, "-m", "scripts.serve", "--quiet", "--root", str(folder), "--config",
            str(HERE / "serving.yaml"), "--port", str(port), "--private-port", str(self.private_port),
        ]  # fmt: skip
        url = f"http://127.0.0.1:{upstream_port}/v1"
        super().__init__("gatehouse", command, cpu, port, GATEHOUSE_UPSTREAM_FIRST=url, GATEHOUSE_UPSTREAM_SECOND=url)

    def features(self, upstream_port: int) -> dict[str, Any]:
        """Return which parts were really at work: what is not there costs nothing and would flatter."""

        def count() -> int:
            return int(json.loads(get(upstream_port, "/count"))["count"])

        before = count()
        for _ in range(2):
            status, headers = ask(self.port, "One question, asked twice.")
        metrics = get(self.private_port, "/metrics").decode()
        booked = [path for path in (self.folder / ".gatehouse").rglob("*") if path.is_file() and path.stat().st_size]
        return {
            "status": status,
            "variants": "x-gatehouse-variant" in headers,
            "exact_cache": count() - before == 1,
            "metrics": "gatehouse_requests_total{" in metrics,
            "guardrails": "gatehouse_guardrail" in metrics,
            "ledger": any(
                (path.name != "serving.key" and "spool" in str(path)) or path.suffix == ".db" for path in booked
            ),
        }


def nginx(cpu: int | None, upstream_port: int, folder: Path) -> Contender:
    """Start nginx as a plain proxy."""
    port = free_port()
    path = folder / "nginx.conf"
    path.write_text(NGINX.format(folder=folder, upstream=upstream_port, port=port))
    return Contender("nginx", ["nginx", "-p", str(folder), "-c", str(path)], cpu, port)


def bare(cpu: int | None, upstream_port: int) -> Contender:
    """Start the bare aiohttp proxy."""
    return Contender("bare", [sys.executable, "-m", "benchmarks.gateway.bare", str(upstream_port)], cpu, 0)


def litellm(cpu: int | None, upstream_port: int, folder: Path) -> Contender:
    """Start LiteLLM's proxy with one worker, one model, a key and nothing else on."""
    install_litellm()
    port = free_port()
    parameters = {"model": "openai/small", "api_base": f"http://127.0.0.1:{upstream_port}/v1", "api_key": "none"}
    price = {"input_cost_per_token": 1e-8, "output_cost_per_token": 2e-8}  # a model without costs it much more
    declared = {
        "model_list": [{"model_name": "bench", "litellm_params": parameters, "model_info": price}],
        "general_settings": {"master_key": KEY},
        "litellm_settings": {"telemetry": False, "num_retries": 0},
    }
    path = folder / "litellm.yaml"
    path.write_text(json.dumps(declared))
    command = [str(LITELLM / "bin/litellm"), "--config", str(path), "--host", "127.0.0.1", "--port", str(port)]
    environment = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}
    return Contender("litellm", [*command, "--num_workers", "1", "--telemetry", "False"], cpu, port, **environment)


def install_litellm() -> None:
    """Install what benchmarks/gateway/litellm.txt locks, by hash, into an environment of its own."""
    digest = sha256(LITELLM_LOCK.read_bytes()).hexdigest()
    mark = LITELLM / "installed"
    if mark.exists() and mark.read_text() == digest:
        return
    shutil.rmtree(LITELLM, ignore_errors=True)
    print("installing LiteLLM into an environment of its own ...", file=sys.stderr)
    uv = str(Path(sys.executable).parent / "uv")
    environment = {**os.environ, "VIRTUAL_ENV": str(LITELLM), "UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", "")}
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(LITELLM)], check=True)
    command = [uv, "pip", "install", "--quiet", "--require-hashes", "-r", str(LITELLM_LOCK)]
    subprocess.run(command, env=environment, check=True)
    mark.write_text(digest)
