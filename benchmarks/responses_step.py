"""The responses step against a server without latency: ours, a bare aiohttp loop, and Ondine."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared" / "bench"
_ONDINE_VENV = ROOT / ".bench" / "ondine"
_ONDINE = "ondine==2.1.1"
_ONDINE_ROWS = 2000
_CONCURRENCY = 100


def main(rows: int = 10_000) -> None:
    missing = _missing()
    if missing:
        print(f"\nThe comparison at 0 ms is skipped: {missing}.")
        return
    port = free_port()
    server = subprocess.Popen(["node", str(SHARED / "mock_llm.js"), str(port), "0"])
    try:
        wait_for(port)
        _print_table(_measure(port, rows))
        _print_profile(port, rows)
    finally:
        server.terminate()
        server.wait()


def _missing() -> str | None:
    if shutil.which("node") is None:
        return "node is not installed"
    if not SHARED.is_dir():
        return f"{SHARED} is not there"
    return None


def _measure(port: int, rows: int) -> dict[str, dict[str, Any]]:
    size = [str(rows), str(_CONCURRENCY)]
    bodies = _run([sys.executable, "-m", "benchmarks.ours", str(port), *size, "--bodies"])
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    bare = [sys.executable, "-m", "benchmarks.bare_aiohttp", url, str(_CONCURRENCY)]
    ours = [sys.executable, "-m", "benchmarks.ours", str(port), *size]
    results = {
        "bare aiohttp": json.loads(_run(bare, bodies)),
        "ondine_dagster": json.loads(_run(ours)),
        "bare aiohttp, again": json.loads(_run(bare, bodies)),
    }
    ondine = ondine_python()
    if ondine is None:
        print(f"\nOndine is left out: {_ONDINE} could not be installed.")
        return results
    script = [str(ondine), str(SHARED / "run_ondine.py"), "--port", str(port)]
    flags = ["--rows", str(_ONDINE_ROWS), "--concurrency", str(_CONCURRENCY), "--warmup", "100"]
    results["Ondine 2.1.1"] = json.loads(_run([*script, *flags]))
    return results


def ondine_python() -> Path | None:
    """Return the Python of a venv of Ondine's own, made when it is first needed."""
    python = _ONDINE_VENV / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", str(_ONDINE_VENV)], check=True)
        install = [str(python), "-m", "pip", "install", "--quiet", _ONDINE]
        if subprocess.run(install, check=False).returncode:
            shutil.rmtree(_ONDINE_VENV)
            return None
    return python


def _print_table(results: dict[str, dict[str, Any]]) -> None:
    floor = results["bare aiohttp"]["cpu_s"] / results["bare aiohttp"]["rows"]
    print(f"\n## The responses step at concurrency {_CONCURRENCY}, server without latency\n")
    print("| client | rows | rows/s | CPU ms per row | times bare aiohttp |")
    print("|---|---|---|---|---|")
    for name, one in results.items():
        cpu = one["cpu_s"] / one["rows"]
        rate = one["rows"] / one["wall_s"]
        print(f"| {name} | {one['rows']} | {rate:,.0f} | {1000 * cpu:.3f} | {cpu / floor:.1f} |")
    if "Ondine 2.1.1" in results:
        ours, ondine = results["ondine_dagster"], results["Ondine 2.1.1"]
        ratio = (ondine["cpu_s"] / ondine["rows"]) / (ours["cpu_s"] / ours["rows"])
        print(f"\nOndine takes {ratio:.1f} times our CPU per row.")


def _print_profile(port: int, rows: int) -> None:
    command = [sys.executable, "-m", "benchmarks.ours", str(port), str(rows), str(_CONCURRENCY)]
    print("\nWhere the time goes (profiled, so slower):", flush=True)
    done = subprocess.run(
        [*command, "--profile"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    print(done.stderr)


def _run(command: list[str], stdin: bytes = b"") -> bytes:
    done = subprocess.run(command, cwd=ROOT, input=stdin, stdout=subprocess.PIPE, check=True)
    return done.stdout


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(port: int) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise RuntimeError("the mock server did not start")
