"""A Dagster project of somebody else, with our datasets in it, and `dagster dev` on it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from ondine_dagster.cli.dagster_yaml import LAPTOP, template
from ondine_dagster_tests.end_to_end.graphql import Dagster

ROOT = Path(__file__).resolve().parents[2]

_PYPROJECT = """\
[tool.dagster]
module_name = "shop.definitions"
code_location_name = "shop"
[tool.dg]
directory_type = "project"
[tool.dg.project]
root_module = "shop"
code_location_target_module = "shop.definitions"
code_location_name = "shop"
"""
_DEFINITIONS = """\
from pathlib import Path
import dagster as dg

import ondine_dagster.assets.automation.automation

ondine_dagster.assets.automation.automation._SECONDS_BETWEEN_TICKS = 8  # tests do not wait for 30

@dg.definitions
def defs() -> dg.Definitions:
    declared = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    return dg.Definitions.merge(declared, dg.Definitions(executor=dg.in_process_executor))
"""
# Dagster has no setting for the 30 s between two looks at the backfills. With this on its path its
# daemon looks every 2 s, and is as it is otherwise.
_SITECUSTOMIZE = """\
import sys

if "dagster._daemon" in sys.orig_argv:
    import dagster._daemon.controller

    dagster._daemon.controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 2
"""


def make_project(root: Path, datasets: Sequence[Mapping[str, Any]]) -> Path:
    """Write a project with one `defs.yaml` per dataset; return its folder."""
    package = root / "shop"
    (package / "defs").mkdir(parents=True)
    (root / "pyproject.toml").write_text(_PYPROJECT)
    (package / "__init__.py").touch()
    (package / "defs" / "__init__.py").touch()
    (package / "definitions.py").write_text(_DEFINITIONS)
    for attributes in datasets:
        folder = package / "defs" / attributes["name"]
        folder.mkdir()
        document = {"type": "ondine_dagster.LLMDataset", "attributes": attributes}
        (folder / "defs.yaml").write_text(yaml.safe_dump(document, allow_unicode=True))
    return root


@contextmanager
def dagster_dev(project: Path, folder: Path, settings: str = LAPTOP) -> Iterator[Dagster]:
    """Run `dagster dev` on a project, with a DAGSTER_HOME in `folder` that it may find again."""
    home = folder / "dagster_home"
    if not home.exists():
        home.mkdir()
        text = template(settings)
        assert "poll_interval_seconds: 30" in text
        text = text.replace("poll_interval_seconds: 30", "poll_interval_seconds: 2")
        (home / "dagster.yaml").write_text(text)
        (folder / "quick" / "sitecustomize.py").parent.mkdir()
        (folder / "quick" / "sitecustomize.py").write_text(_SITECUSTOMIZE)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = folder / "dagster_dev.log"
    paths = [str(folder / "quick"), str(ROOT), str(project), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    with open(log, "ab") as output:
        # a child inherits what its parent ignores, and one that ignores SIGINT cannot be stopped
        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", "dagster", "dev", "-h", "127.0.0.1", "-p", str(port)],
                cwd=project,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            signal.signal(signal.SIGINT, before)
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url, process, log)
            yield Dagster(url, process.pid)
        except BaseException:
            sys.stdout.write(log.read_text(errors="replace")[-20_000:])
            raise
        finally:
            _stop(process)


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 120
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text(errors="replace")[-5000:]
        try:
            with urllib.request.urlopen(f"{url}/server_info", timeout=5):
                return
        except OSError:
            time.sleep(0.3)
    raise AssertionError(f"dagster dev does not answer: {log.read_text(errors='replace')[-5000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop it and everything that it started: all of that is in its session."""
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.wait(timeout=30)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
