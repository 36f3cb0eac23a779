"""The manifest of a run: what has to be known to explain it a year later, in one JSON file.

Written at the end of each step that asks or reads answers, whether it failed or not. Holds no text
of a row and no secret.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from ondine_dagster.assets.shared.partition_counts import RESPONSES, PartitionCounts
from ondine_dagster.assets.shared.pipeline import Pipeline
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger import schema
from ondine_dagster.ledger.coverage import reading
from ondine_dagster.ledger.identity import digest, first_id
from ondine_dagster.llm.own_code import version
from ondine_dagster.llm.prices import usd
from ondine_dagster.llm.provider import Completion, Provider, Usage, Verdict
from ondine_dagster.llm.structured import wire_schema
from ondine_dagster.storage.atomic import ensure_folder, write_atomically
from ondine_dagster.storage.lake import Lake
from ondine_dagster.storage.sealed_texts import key_name
from ondine_dagster.storage.snapshot import Snapshot, current_snapshot

if TYPE_CHECKING:
    from ondine_dagster.engine.engine import Engine

FORMAT = 1
_MILLION = 10**6
_CLOCKS_DIFFER = timedelta(hours=1)
_PACKAGES = (
    *("ondine_dagster", "dagster", "pydantic", "jinja2", "pyarrow", "duckdb", "sqlalchemy"),
    *("httpx", "aiohttp"),
)
_TAGS = ("ondine/", "dagster/")
_HELD = ("open", "unknown")
_t = schema.attempts.c


class Manifest:
    """Collects what a step did; `write` puts it down. `engine` is set where requests are sent."""

    def __init__(
        self,
        pipeline: Pipeline,
        lake: Lake,
        ledger: Path,
        run: tuple[str, str, str],
        wanted: Sequence[str],
        tags: Mapping[str, str],
    ) -> None:
        """`run` are id, scope and mode of the run, `wanted` the assets that the step writes.

        `tags` are those of the run: they say what it was asked to do, and by what.
        """
        self.path = ledger.parent / "manifests" / f"{run[0]}.json"
        self.engine: Engine | None = None
        self._pipeline = pipeline
        self._lake = lake
        self._ledger = ledger
        told = {key: text for key, text in sorted(tags.items()) if key.startswith(_TAGS)}
        self._run = {
            "id": run[0],
            "scope": run[1],
            "mode": run[2],
            "assets": list(wanted),
            "tags": told,
        }
        self._asks = RESPONSES in wanted
        self._started = datetime.now(UTC)
        self._partitions: dict[str, dict[str, Any]] = {}

    def partition(self, key: str, counts: PartitionCounts, data_version: str) -> None:
        """Take in what a partition came to."""
        self._partitions[key] = {
            "rows": counts.rows,
            "results": counts.results - counts.skipped,
            "skipped": counts.skipped,
            "rejected": counts.rejected_for_good,
            "waiting": counts.unanswered,
            "reused": counts.reused,
            "codes": dict(sorted(counts.codes.items())),
            "red": counts.red,
            "data_version": data_version,
        }

    @contextmanager
    def written(self, warn: Callable[[str], object]) -> Iterator[None]:
        """Write the manifest when the block ends, and how it did.

        Where that cannot be done, `warn` hears why: what was asked and paid is in order.
        """
        ended = "success"
        try:
            yield
            if any(one["red"] for one in self._partitions.values()):
                ended = "failure"
        except Exception:
            ended = "failure"
            raise
        except BaseException:
            ended = "interrupted"
            raise
        finally:
            try:
                self._write(ended)
            except (OSError, OndineError) as error:
                warn(f"{self._pipeline.name}: no manifest of this run could be written: {error}")

    def _write(self, ended: str) -> None:
        text = json.dumps(self._content(ended), ensure_ascii=False, indent=2)
        ensure_folder(self.path.parent)
        write_atomically(self.path, text.encode())

    def _content(self, ended: str) -> dict[str, Any]:
        pipeline = self._pipeline
        snapshot = current_snapshot(self._lake, pipeline.name)
        texts = pipeline.prompt_texts
        # addresses of databases hide themselves, and others hold no password
        declared = pipeline.dataset.model_dump(mode="json", exclude_defaults=True)
        checked = self.engine.checked if self.engine else None
        listed = checked.listed if checked else None
        stopped = self.engine.stopped if self.engine else None
        return {
            "format": FORMAT,
            "run": {
                **self._run,
                "started": self._started.isoformat(timespec="milliseconds"),
                "ended": datetime.now(UTC).isoformat(timespec="milliseconds"),
                "outcome": ended,
                "stopped": stopped.code if stopped else None,
            },
            "dataset": pipeline.name,
            "versions": {"python": platform.python_version(), **dict(_versions())},
            "declaration": {
                "file": str(pipeline.declared_in),
                "sha256": digest(declared).hex(),
                "content": declared,
                "prompt": {"system": texts.system, "template": texts.template, **texts.question()},
                "schema": wire_schema(pipeline.dataset.output.fields),
                "code_sha256": None if pipeline.code is None else version(pipeline.code),
                "question_version": pipeline.question_version,
                "local_version": pipeline.local_version,
            },
            "models": {
                name: {**_model(one), "sampling": llm.sampling}
                for name, one, llm in (
                    ("llm", pipeline.provider, pipeline.dataset.llm),
                    ("fallback", pipeline.fallback, pipeline.fallback_llm),
                )
                if one is not None and llm is not None
            },
            "catalogue": None
            if listed is None
            else {"url": listed.url, "sha256": listed.catalogue.sha256},
            "snapshot": None if snapshot is None else _source(snapshot),
            "encryption_key": key_name(),
            "counts": _summed(self._partitions.values()),
            "requests": self._requests() if self._asks else {},
            "partitions": self._partitions,
        }

    def _requests(self) -> dict[str, Any]:
        """Return the requests of this very run by what became of them, and their money in USD."""
        kinds = [
            column.label(name)
            for name, column in (
                ("state", _t.state),
                ("kind", _t.kind),
                ("error", _t.code),
                ("model", _t.model_requested),
                ("model_served", _t.model_served),
                ("provider_served", _t.provider_served),
                ("price_version", _t.price_version),
            )
        ]
        statement = (
            sa.select(
                *kinds,
                sa.func.count(),
                sa.func.sum(_t.cost),
                sa.func.sum(_t.reserved),
                sa.func.sum(_t.prompt_tokens),
                sa.func.sum(_t.completion_tokens),
            )
            .where(
                # ids sort by time: only so is a ledger of millions not read whole
                _t.id >= first_id(self._started - _CLOCKS_DIFFER),
                _t.run_id == self._run["id"],
                _t.dataset == self._pipeline.name,
            )
            .group_by(*kinds)
            .order_by(*kinds)
        )
        with reading(self._ledger) as connection:
            rows = [] if connection is None else connection.execute(statement).all()
        return {
            "by_state": [
                {
                    **dict(zip((one.name for one in kinds), kind, strict=True)),
                    "requests": count,
                    "cost_usd": f"{usd(int(cost or 0)):f}",
                    "at_most_usd": f"{usd(int(held)):f}" if kind[0] in _HELD else None,
                    "prompt_tokens": int(prompt or 0),
                    "completion_tokens": int(completion or 0),
                }
                for *kind, count, cost, held, prompt, completion in rows
            ]
        }


def _versions() -> Iterator[tuple[str, str]]:
    for package in _PACKAGES:
        try:
            yield package, metadata.version(package)
        except metadata.PackageNotFoundError:  # run from a checkout
            continue


def _source(snapshot: Snapshot) -> Mapping[str, Any]:
    return {
        "version": snapshot.version,
        "taken_at": snapshot.taken_at.isoformat(timespec="milliseconds"),
        "source": snapshot.source_path,
        "rows": snapshot.rows,
        "columns": list(snapshot.source_columns),
        "sha256": dict(snapshot.source_files),
    }


def _model(provider: Provider) -> Mapping[str, Any]:
    return {
        "provider": provider.name,
        "model": provider.model,
        "identity": provider.identity,
        "base_url": provider.base_url,
        "ceiling": provider.ceiling,
        "price_version": provider.price_version,
        "prices_usd": _prices(provider),
        "at_most_per_million_usd": {
            "input": f"{usd(provider.worst_case(_MILLION, 0)):f}",
            "output": f"{usd(provider.worst_case(0, _MILLION)):f}",
        },
    }


def _prices(provider: Provider) -> Mapping[str, str]:
    """Return what a request costs, and a million tokens of each kind, in a small request."""

    def cost(*tokens: int) -> int:
        return provider.cost(Completion(Verdict.OK, "", usage=Usage(*tokens))).amount or 0

    fee = cost(0, 0, 0, 0, 0)
    thousand = {
        "input": (1000, 0, 0, 0, 0),
        "cached_input": (1000, 0, 1000, 0, 0),
        "cache_write": (1000, 0, 0, 0, 1000),
        "output": (0, 1000, 0, 0, 0),
    }
    return {"request": f"{usd(fee):f}"} | {
        f"million_{kind}_tokens": f"{usd((cost(*tokens) - fee) * 1000):f}"
        for kind, tokens in thousand.items()
    }


def _summed(partitions: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    names = ("rows", "results", "skipped", "rejected", "waiting", "reused")
    found = list(partitions)
    return {name: sum(one[name] for one in found) for name in names} | {
        "partitions": len(found),
        "red": sum(one["red"] for one in found),
    }
