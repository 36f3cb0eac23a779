"""`ondine-dagster preview`: the prompts of the first rows as they would be sent. Asks nobody."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from rich.text import Text

from ondine_dagster.assets.planning.prompt_preview import PreviewRow, PromptPreview, preview_prompts
from ondine_dagster.assets.rows.cleaned import cleaned_text
from ondine_dagster.assets.shared.declared_columns import check_source_columns
from ondine_dagster.assets.shared.status import dataset_status
from ondine_dagster.cli.choice import Choice, choose
from ondine_dagster.cli.console import aligned, output
from ondine_dagster.cli.target import Target, find_target
from ondine_dagster.ledger.coverage import reading
from ondine_dagster.storage.preview import preview_snapshot
from ondine_dagster.wording import plural


def preview_command(called: str, rows: int, partitions: tuple[str, ...], *, as_json: bool) -> None:
    """Print the first `rows` prompts with the source as it is now, and the rows without one."""
    target = find_target(called)
    found = _made(target, rows, partitions)
    console = output()
    if as_json:
        text = json.dumps(_document(found), ensure_ascii=False, indent=2)
        console.print(Text(text))
        return
    for section in _sections(found):
        console.print(section)
        console.print()


def _made(target: Target, rows: int, partitions: tuple[str, ...]) -> PromptPreview:
    pipeline, lake = target.pipeline, target.lake
    with (
        preview_snapshot(lake, pipeline.dataset, pipeline.source()) as (aside, snapshot),
        reading(target.settings.ledger_path) as connection,
    ):
        check_source_columns(pipeline, snapshot.source_columns)
        if partitions:  # refuses one that is not there
            status = dataset_status(pipeline, lake, snapshot)
            choose(Choice(partitions=partitions), status, pipeline, lake)
        looked_at = set(partitions) or {one.key for one in snapshot.partitions}
        return preview_prompts(pipeline, (aside, snapshot), looked_at, rows, connection)


def _sections(found: PromptPreview) -> Iterator[Text]:
    for row in found.rows:
        yield _row(row)
    lines = [f"{_rendered(found):,} of {plural(found.looked_at, 'row')} rendered."]
    if found.skipped:
        lines.append(f"{plural(found.skipped, 'row')} skipped by `when`.")
    if found.cleaned:
        lines.append(f"Rows that prompt.clean changes: {cleaned_text(found.cleaned)}.")
    yield Text("\n".join([*lines, *found.remarks]))
    if found.codes:
        yield _failed(found)


def _rendered(found: PromptPreview) -> int:
    return found.looked_at - found.skipped - found.codes.total()


def _row(row: PreviewRow) -> Text:
    assert row.parts is not None
    tokens = ", ".join(f"{part} {count:,}" for part, count in row.parts.tokens.items() if count)
    title = f"row {row.position + 1}, partition {row.partition}"
    lines = [Text.assemble((title, "bold"), f"   about {tokens} tokens")]
    for message in row.parts.messages:
        lines.append(Text(f"[{message['role']}]", "dim"))
        lines.append(Text(str(message["content"])))
        lines += [Text(f"  with {_file(one)}") for one in message.get("attachments", ())]
    return Text("\n").join(lines)


def _file(attached: dict[str, Any]) -> str:
    size = f", {attached['size']:,} bytes" if "size" in attached else ""
    return f"{attached['kind']} {attached.get('url') or attached.get('media_type')}{size}"


def _failed(found: PromptPreview) -> Text:
    total = found.codes.total()
    lines = [(f"  row {one.position + 1}", one.code, one.message) for one in found.failed]
    if total > len(lines):
        rest = ", ".join(f"{code} {count:,}" for code, count in found.codes.most_common())
        lines.append((f"  of {total:,}", rest, ""))
    return Text.assemble((f"No prompt for {plural(total, 'row')}\n", "bold"), aligned(lines))


def _document(found: PromptPreview) -> dict[str, Any]:
    return {
        "rows": [
            {
                "row": row.position + 1,
                "partition": row.partition,
                "tokens": row.parts.tokens,
                "messages": row.parts.messages,
            }
            for row in found.rows
            if row.parts is not None
        ],
        "looked_at": found.looked_at,
        "rendered": _rendered(found),
        "skipped": found.skipped,
        "failed": dict(found.codes),
        "failed_rows": [
            {"row": row.position + 1, "code": row.code, "message": row.message}
            for row in found.failed
        ],
        "cleaned": [
            {"column": column, "kind": kind, "rows": rows}
            for (column, kind), rows in found.cleaned.items()
        ],
        "remarks": found.remarks,
    }
