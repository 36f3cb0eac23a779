"""`ondine-dagster explain`: every request for a row, what was sent, what came back, its cost."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.text import Text

from ondine_dagster.assets.audit.explain import Explained, RowStory, explain_row
from ondine_dagster.assets.shared.partition_counts import REJECTED, RESULTS
from ondine_dagster.cli.console import aligned, output
from ondine_dagster.cli.target import find_target
from ondine_dagster.ledger.history import RowRequest
from ondine_dagster.llm.prices import money, usd
from ondine_dagster.spec import LINEAGE_COLUMNS
from ondine_dagster.storage.sealed_texts import UNREADABLE
from ondine_dagster.wording import plural

_MONEY = ("reserved", "cost", "cost_share")
_TIMES = ("t_open", "t_end")
_PLACES = {
    RESULTS: "in results",
    REJECTED: "in rejected_rows",
    "responses": "answered; results and rejected_rows are not written yet",
    "prompts": "not asked yet: it has a prompt",
}


def explain_command(called: str, row_key: str, *, as_json: bool) -> None:
    """Print the story of a row; raises OndineError for one that nobody knows."""
    target = find_target(called)
    story = explain_row(target.pipeline, target.lake, target.settings.ledger_path, row_key)
    console = output()
    if as_json:
        console.print(Text(_as_json(document(story), indent=2)))
        return
    _show(console, story)
    if any(one.request.state == "unknown" for one in story.requests):
        what = target.command("ledger unknown")
        console.print(Text(f"\nWhat can be done about an unknown outcome: {what}"))


def document(story: RowStory) -> dict[str, Any]:
    """Return a story for programs: ids and keys in hex, money in USD as text, times in ISO 8601."""
    return {
        "dataset": story.dataset,
        "row_key": story.row_key,
        "partition": story.partition,
        "place": story.place,
        "row": story.row,
        "requests": [
            {
                **_plain(asdict(one.request)),
                "question": one.question,
                "trace_id": one.trace_id,
                "sent": one.sent,
                "sent_unreadable": one.sent_unreadable,
                "problem": one.problem,
            }
            for one in story.requests
        ],
    }


def _plain(fields: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in fields.items():
        if name in _MONEY:
            found[f"{name}_usd"] = None if value is None else f"{usd(value):f}"
        elif name in _TIMES:
            found[name] = None if value is None else _moment(value).isoformat()
        else:
            found[name] = value.hex() if isinstance(value, bytes) else value
    return found


def _show(console: Console, story: RowStory) -> None:
    where = f", partition {story.partition}" if story.partition else ""
    console.print(Text.assemble((f"{story.dataset} row {story.row_key}", "bold"), where))
    console.print(Text(f"now {_PLACES.get(story.place, story.place)}"))
    if shown := [(f"  {name}", _on_one_line(value)) for name, value in _columns(story).items()]:
        console.print(aligned(shown))
    own = [one.request for one in story.requests if _is_own(story, one.request)]
    settled = money(sum(one.cost_share or 0 for one in own))
    unknown = sum(one.reserved for one in own if one.state in ("open", "unknown"))
    lost = f", and up to {money(unknown)} of unknown outcome" if unknown else ""
    console.print(Text(f"{plural(len(own), 'request')} for it, {settled}{lost}"))
    for place, one in enumerate(story.requests, 1):
        console.print()
        console.print(_request(story, one, place))


def _is_own(story: RowStory, request: RowRequest) -> bool:
    return (request.dataset, request.for_row) == (story.dataset, story.row_key)


def _columns(story: RowStory) -> dict[str, Any]:
    """Return what stands of a row, without what its requests tell."""
    told = {*LINEAGE_COLUMNS, "_raw_text", "_events"} - {"_flags"}
    return {
        name: value for name, value in story.row.items() if value is not None and name not in told
    }


def _cell(value: Any) -> str:
    return value if isinstance(value, str) else _as_json(value)


def _on_one_line(value: Any) -> str:
    return _cell(value).replace("\r", "").replace("\n", "⏎")


def _as_json(value: Any, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, default=_other)


def _other(value: Any) -> str:
    return value.hex() if isinstance(value, bytes) else str(value)


def _request(story: RowStory, one: Explained, place: int) -> Text:
    request = one.request
    counts = "; its answer is the one that counts" if request.current else ""
    title = f"request {place} of {len(story.requests)}: {one.question}{counts}"
    lines = [(f"  {name}", text) for name, text in _facts(story, one) if text]
    return Text("\n").join([Text(title, "bold"), aligned(lines), *_texts(one)])


def _facts(story: RowStory, one: Explained) -> Iterator[tuple[str, str]]:
    request = one.request
    took = "" if request.t_end is None else f", {request.t_end - request.t_open:,} ms"
    yield "when", f"{_moment(request.t_open):%Y-%m-%d %H:%M:%S} UTC{took}"
    if not _is_own(story, request):
        yield "sent for", f"row {request.for_row} of {request.dataset}: the same question"
    if request.rows > 1:
        yield "together", f"{plural(request.rows, 'row')} in one request, here is this row's part"
    kind = f"{request.kind}, compared only" if request.kind == "verify" else request.kind
    tries = "" if request.number == 1 else f", number {request.number} of its run"
    yield "kind", f"{kind}{tries}"
    # what is said of a request of several rows is not true of each of them
    together = request.rows > 1
    ended = [request.state, request.verdict, None if together else request.error_class]
    ended += [request.answer_code if together else request.code or request.answer_code]
    yield "ended", ", ".join(dict.fromkeys(filter(None, [*ended, *request.flags])))
    if together and request.code is not None:
        yield "as a whole", f"{request.error_class}, {request.code}"
    yield "of no use", one.problem or ""
    served = [request.model_served, request.provider_served]
    told = f", served {' by '.join(filter(None, served))}" if any(served) else ""
    yield "model", f"{request.model_requested}{told}"
    yield "server", f"{request.base_url} ({request.provider})"
    yield "cost", _cost(request)
    yield "prices", request.price_version
    yield "partition", request.partition or ""
    yield "run", request.run_id or request.run_scope
    yield "trace", one.trace_id
    yield "id", request.id.hex()
    yield "their id", request.remote_id or ""


def _cost(request: RowRequest) -> str:
    if request.cost is None:
        return f"at most {money(request.reserved)}" if request.state != "released" else "$0"
    part = "" if request.rows == 1 else f" of {money(request.cost)} for the request"
    share = request.cost if request.cost_share is None else request.cost_share
    source = f", {request.cost_source}" if request.cost_source else ""
    tokens = ""
    if request.prompt_tokens is not None:
        tokens = f", {request.prompt_tokens:,} + {request.completion_tokens or 0:,} tokens"
    return f"{money(share)}{part}{source}{tokens}"


def _texts(one: Explained) -> Iterator[Text]:
    if one.sent_unreadable:
        yield Text(f"  sent: {UNREADABLE}", "dim")
    elif one.sent is None:
        yield Text("  sent: not kept. The row has another prompt by now, or none.", "dim")
    for message in one.sent or ():
        yield Text(f"  [{message['role']}]", "dim")
        yield Text(_indented(_cell(message["content"])))
    request = one.request
    if request.payload_state in ("purged", "unreadable"):
        yield Text(f"  came back: an answer whose text is {request.payload_state}", "dim")
    elif request.text is not None:
        reason = f" ({request.finish_reason})" if request.finish_reason else ""
        yield Text(f"  came back{reason}", "dim")
        yield Text(_indented(request.text))


def _indented(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.split("\n"))


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)
