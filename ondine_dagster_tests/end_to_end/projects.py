"""A Dagster project of somebody else, with our datasets in it, and `dagster dev` on it."""

from __future__ import annotations

import json
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

@dg.definitions
def defs() -> dg.Definitions:
    declared = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
    return dg.Definitions.merge(declared, dg.Definitions(executor=dg.in_process_executor))
"""
_DAGSTER_YAML = """\
telemetry: {enabled: false}
run_coordinator:
  module: dagster.core.run_coordinator
  class: QueuedRunCoordinator
  config: {dequeue_interval_seconds: 1}
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


class Dagster:
    """A running `dagster dev`, asked through GraphQL as its page does."""

    def __init__(self, url: str) -> None:
        self._url = f"{url}/graphql"

    def ask(self, query: str, **variables: Any) -> Any:
        """Return the data of a query; raises AssertionError with what the server said."""
        body = json.dumps({"query": query, "variables": variables}).encode()
        request = urllib.request.Request(
            self._url, body, {"content-type": "application/json"}, method="POST"
        )
        with urllib.request.urlopen(request, timeout=60) as reply:
            answer = json.load(reply)
        assert "errors" not in answer, answer["errors"]
        return answer["data"]

    def backfill(self, assets: Sequence[Sequence[str]], partitions: Sequence[str]) -> str:
        """Launch a backfill; return its id."""
        parameters = {
            "assetSelection": [{"path": list(path)} for path in assets],
            "partitionNames": list(partitions),
        }
        data = self.ask(
            """mutation ($parameters: LaunchBackfillParams!) {
                launchPartitionBackfill(backfillParams: $parameters) {
                    __typename
                    ... on LaunchBackfillSuccess { backfillId }
                    ... on PythonError { message }
                }
            }""",
            parameters=parameters,
        )["launchPartitionBackfill"]
        assert data["__typename"] == "LaunchBackfillSuccess", data
        return str(data["backfillId"])

    def retry(self, backfill: str) -> str:
        """Re-execute a backfill from failure; return the id of the new one."""
        data = self.ask(
            """mutation ($parameters: ReexecutionParams!) {
                reexecutePartitionBackfill(reexecutionParams: $parameters) {
                    __typename
                    ... on LaunchBackfillSuccess { backfillId }
                    ... on PythonError { message }
                }
            }""",
            parameters={"parentRunId": backfill, "strategy": "FROM_FAILURE"},
        )["reexecutePartitionBackfill"]
        assert data["__typename"] == "LaunchBackfillSuccess", data
        return str(data["backfillId"])

    def wait_for_backfill(self, backfill: str, seconds: float = 240) -> str:
        """Wait until a backfill has ended; return its status. Its daemon wakes up every 30 s."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status = self.ask(
                """query ($id: String!) {
                    partitionBackfillOrError(backfillId: $id) {
                        ... on PartitionBackfill { status }
                    }
                }""",
                id=backfill,
            )["partitionBackfillOrError"]["status"]
            if status not in ("REQUESTED", "FAILING", "CANCELING"):
                return str(status)
            time.sleep(0.5)
        raise AssertionError(f"backfill {backfill} is still {status} after {seconds} s")

    def runs_of(self, backfill: str) -> list[dict[str, Any]]:
        """Return status and tags of the runs of a backfill."""
        found = self.ask(
            """query ($filter: RunsFilter!) {
                runsOrError(filter: $filter) {
                    ... on Runs { results { runId status tags { key value } } }
                }
            }""",
            filter={"tags": [{"key": "dagster/backfill", "value": backfill}]},
        )["runsOrError"]["results"]
        return [{**run, "tags": {t["key"]: t["value"] for t in run["tags"]}} for run in found]

    def partition_stats(self, asset: Sequence[str]) -> dict[str, int]:
        """Return how many partitions of an asset are materialized, failed, and exist."""
        data = self.ask(
            """query ($key: AssetKeyInput!) {
                assetNodeOrError(assetKey: $key) {
                    ... on AssetNode {
                        partitionStats { numMaterialized numFailed numPartitions }
                    }
                }
            }""",
            key={"path": list(asset)},
        )
        return dict(data["assetNodeOrError"]["partitionStats"])

    def materialize(self, assets: Sequence[Sequence[str]]) -> None:
        """Launch one run of assets without partitions and wait for its success."""
        location = "shop"
        data = self.ask(
            """mutation ($parameters: ExecutionParams!) {
                launchPipelineExecution(executionParams: $parameters) {
                    __typename
                    ... on LaunchRunSuccess { run { runId } }
                    ... on PythonError { message }
                }
            }""",
            parameters={
                "selector": {
                    "repositoryLocationName": location,
                    "repositoryName": "__repository__",
                    "pipelineName": "__ASSET_JOB",
                    "assetSelection": [{"path": list(path)} for path in assets],
                },
                "runConfigData": {},
            },
        )["launchPipelineExecution"]
        assert data["__typename"] == "LaunchRunSuccess", data
        self._wait_for_run(data["run"]["runId"])

    def _wait_for_run(self, run: str, seconds: float = 120) -> None:
        end = time.monotonic() + seconds
        status = "?"
        while time.monotonic() < end:
            status = self.ask(
                "query ($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }", id=run
            )["runOrError"]["status"]
            if status in ("SUCCESS", "FAILURE", "CANCELED"):
                break
            time.sleep(0.3)
        assert status == "SUCCESS", f"run {run} is {status}"

    def asset_keys(self) -> set[str]:
        """Return the keys of all assets that the page shows."""
        nodes = self.ask("{ assetNodes { assetKey { path } } }")["assetNodes"]
        return {"/".join(node["assetKey"]["path"]) for node in nodes}


@contextmanager
def dagster_dev(project: Path, folder: Path) -> Iterator[Dagster]:
    """Run `dagster dev` on a project, with a DAGSTER_HOME of its own in `folder`."""
    home = folder / "dagster_home"
    home.mkdir()
    (home / "dagster.yaml").write_text(_DAGSTER_YAML)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    log = folder / "dagster_dev.log"
    paths = [str(ROOT), str(project), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "PYTHONPATH": os.pathsep.join(filter(None, paths)),
    }
    with open(log, "wb") as output:
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
            yield Dagster(url)
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
