"""Rows with images and documents, from the source to the bill."""

from __future__ import annotations

import base64
import json
import os
import signal
import time
import tracemalloc
from pathlib import Path
from typing import Any

import pytest

from ondine_dagster.assets.planning.plan import plan_rows
from ondine_dagster.assets.rows.attachments import FETCHED_AT_ONCE, AttachmentReader
from ondine_dagster.assets.rows.outlook import Need
from ondine_dagster.engine import fetching
from ondine_dagster.llm.attachments import Attachment
from ondine_dagster.llm.errors import ErrorCode
from ondine_dagster.llm.prompt import RenderError
from ondine_dagster.simulator import Simulator
from ondine_dagster.spec import Prompt
from ondine_dagster.storage.attachments import AttachmentStore
from ondine_dagster_tests.engine.raw_server import Peer, RawServer, reply
from ondine_dagster_tests.engine.test_address_guard import REFUSED
from ondine_dagster_tests.engine.test_fetching import Endless
from ondine_dagster_tests.small_files import PDF, PNG, png
from ondine_dagster_tests.workbench import PROMPTS, REJECTED, RESULTS, Bench, MakeBench, Rows

HERE = {"trusted_hosts": ["127.0.0.1"]}


def photographed(make_bench: MakeBench, rows: Rows, **prompt: Any) -> Bench:
    """Make a bench whose rows have a column `photo`."""
    declared = {"template": "{{ text }}", "images": [{"column": "photo"}], **prompt}
    return make_bench(rows, prompt=declared, limits={"concurrency": 4})


def row(name: str, photo: str) -> dict[str, str]:
    return {"id": name, "text": f"[[token={name}]]", "photo": photo}


def in_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def read(cell: object, folder: Path, store: AttachmentStore | None = None, **files: Any) -> Any:
    """Return what one cell names: its attachment, or the code of its error."""
    prompt = Prompt.model_validate(
        {"template": "x", "images": [{"column": "photo"}], "files": files}
    )
    (found,) = AttachmentReader(prompt, lambda: folder, store).read([{"photo": cell}])
    return found.code if isinstance(found, RenderError) else found[0]


# whole runs


def test_images_by_path_url_and_base64_are_sent_paid_once_and_not_stored_in_the_lake(
    make_bench: MakeBench, simulator: Simulator, tmp_path: Path
) -> None:
    (tmp_path / "photos").mkdir()
    large = png(400, 300) + bytes(200_000)
    (tmp_path / "photos" / "a.png").write_bytes(large)

    def serve(peer: Peer) -> None:
        while True:
            peer.request()
            peer.send(reply(png(30, 20)))

    with RawServer(serve) as server:
        rows = [
            row("path", "photos/a.png"),
            row("url", f"http://{server.address}/b.png"),
            row("data", f"data:image/png;base64,{in_base64(png(10, 10))}"),
            row("bare", in_base64(png(10, 11))),
        ]
        bench = photographed(make_bench, rows, files=HERE)
        bench.run_missing()
    answered = {one["id"]: one["response"] for one in bench.rows(RESULTS)}
    assert answered == {name: name for name in ("path", "url", "data", "bare")}
    bill = simulator.bill.totals
    assert bill.charged == 4
    assert sum(cost for (cost,) in bench.attempts("cost")) == bill.picodollars
    assert all(cost <= reserved for cost, reserved in bench.attempts("cost, reserved"))
    assert bill.prompt_tokens >= 160 + 1 + 1 + 1  # the pictures, at 750 pixels a token
    # the lake has digests; what was fetched or inline is beside it once, a path is a link
    assert sum(one.stat().st_size for one in (bench.data / "lake").rglob("prompts/*")) < 50_000
    kept = [one for one in (bench.data / "attachments").rglob("*") if not one.is_dir()]
    assert sorted(one.is_symlink() for one in kept) == [False, False, False, True]
    # a second run asks nobody for anything: its partition is there
    bench.run_missing()
    assert simulator.bill.totals.charged == 4


def test_the_content_is_the_question_and_not_the_name(
    make_bench: MakeBench, simulator: Simulator, tmp_path: Path
) -> None:
    photo = tmp_path / "a.png"
    photo.write_bytes(png(10, 10))
    bench = photographed(make_bench, [row("r", "a.png")])
    bench.run_missing()
    bench.run()  # the same picture
    assert simulator.bill.totals.charged == 1
    photo.write_bytes(png(10, 10, 99))
    bench.run()
    assert simulator.bill.totals.charged == 2
    assert simulator.bill.totals.repeats == 0, "the second question is another one"
    photo.write_bytes(png(10, 10))
    bench.run()
    assert simulator.bill.totals.charged == 2, "the first picture is paid for"


@pytest.mark.behaviour("A-9", "A-10", "A-10v")
def test_bad_files_are_errors_of_their_rows_before_money_is_spent(
    make_bench: MakeBench, simulator: Simulator, tmp_path: Path
) -> None:
    """All address forms, a file without an end, and files that are not what they should be."""
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "half.png").write_bytes(png(90, 90)[:50])
    vectors = [address.partition("%")[0] for address in REFUSED]
    hosts = [f"[{one}]" if ":" in one else one for one in vectors]
    rows = [row(f"v{n}", f"https://{host}/a.png") for n, host in enumerate(hosts)]
    endless = Endless("Content-Length: 1000000000")
    with RawServer(endless) as server:
        port = server.address.rpartition(":")[2]
        others = {
            f"http://localhost:{port}/big": ErrorCode.REMOTE_TOO_LARGE,
            "http://images.example.com/a.png": ErrorCode.REMOTE_REFUSED,
            "notes.txt": ErrorCode.ATTACHMENT_INVALID,
            "half.png": ErrorCode.ATTACHMENT_INVALID,
            "nothing.png": ErrorCode.ATTACHMENT_MISSING,
            "../../../../../../etc/passwd": ErrorCode.ATTACHMENT_INVALID,
            "/etc/passwd": ErrorCode.ATTACHMENT_INVALID,
            "data:image/png;base64,*": ErrorCode.ATTACHMENT_INVALID,
            "": ErrorCode.ATTACHMENT_MISSING,
        }
        rows += [row(f"o{n}", photo) for n, photo in enumerate(others)]
        rules = {"trusted_hosts": ["localhost"], "max_bytes": 10_000}
        bench = photographed(make_bench, rows, files=rules)
        bench.run_missing()
    codes = [one["_error_code"] for one in bench.rows(REJECTED)]
    assert set(codes[: len(vectors)]) == {ErrorCode.REMOTE_REFUSED}
    assert codes[len(vectors) :] == list(others.values())
    assert simulator.bill.totals.requests == 0
    message = bench.rows(REJECTED)[len(vectors) + 3]["_error_message"]
    assert message == "photo is cut off (image/png)"


def test_a_url_may_be_left_to_the_provider(make_bench: MakeBench, simulator: Simulator) -> None:
    url = "https://images.example.com/a.png"
    images = [{"column": "photo", "fetch": False, "detail": "low"}]
    bench = photographed(make_bench, [row("r", url)], images=images)
    bench.run_missing()
    assert bench.rows(RESULTS)[0]["response"] == "r"
    (prompt,) = bench.rows(PROMPTS)
    assert json.loads(prompt["messages"])[0]["attachments"] == [
        {"detail": "low", "kind": "image", "url": url}
    ]
    assert not (bench.data / "attachments").exists()
    assert simulator.bill.totals.prompt_tokens > 1334


def test_a_row_may_do_without(make_bench: MakeBench, simulator: Simulator, tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    images = [{"column": "photo", "required": False}]
    bench = photographed(make_bench, [row("with", "a.png"), row("without", " ")], images=images)
    bench.run_missing()
    assert simulator.bill.totals.charged == 2
    messages = [json.loads(one["messages"])[0] for one in bench.rows(PROMPTS)]
    assert ["attachments" in one for one in messages] == [True, False]


def test_documents_go_with_images(
    make_bench: MakeBench, simulator: Simulator, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    (tmp_path / "a.pdf").write_bytes(PDF)
    bench = make_bench(
        [{**row("r", "a.png"), "paper": "a.pdf"}],
        prompt={
            "template": "{{ text }}",
            "images": [{"column": "photo"}],
            "documents": [{"column": "paper"}],
        },
        llm={
            "provider": "openai_compatible",
            "name": "demo-model",
            "base_url": simulator.base_url,
            "prices": {"input_per_million_usd": "0.15", "output_per_million_usd": "0.60"},
            "document_tokens": 3000,
            "image_tokens": 100,
        },
    )
    bench.run_missing()
    assert simulator.bill.totals.charged == 1
    ((cost, reserved),) = bench.attempts("cost, reserved")
    assert simulator.bill.totals.picodollars == cost <= reserved
    assert simulator.bill.totals.prompt_tokens > 3000


def test_a_picture_that_changes_between_prompt_and_request_is_not_sent(
    make_bench: MakeBench, simulator: Simulator, tmp_path: Path
) -> None:
    photo = tmp_path / "a.png"
    photo.write_bytes(png(10, 10))
    bench = photographed(make_bench, [row("r", "a.png")])
    bench.snapshot()
    bench.run(assets=["raw_rows", PROMPTS])
    photo.write_bytes(png(10, 10, 99))
    asked = ["responses", RESULTS, REJECTED]
    assert not bench.run(assets=asked, raise_on_error=False).success
    assert simulator.bill.totals.requests == 0
    assert bench.rows(REJECTED)[0]["_error_code"] == ErrorCode.ATTACHMENT_CHANGED
    bench.run_missing()  # the partition is red, so it is looked at anew
    assert bench.rows(RESULTS)[0]["response"] == "r"
    assert simulator.bill.totals.charged == 1


def test_a_model_without_eyes_is_asked_nothing(
    make_bench: MakeBench, simulator: Simulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    monkeypatch.setenv("OPENAI_API_KEY", "a-key-of-the-test")
    llm = {"provider": "openai", "name": "gpt-3.5-turbo", "base_url": simulator.base_url}
    bench = make_bench(
        [row("r", "a.png")],
        prompt={"template": "{{ text }}", "images": [{"column": "photo"}]},
        llm=llm,
    )
    bench.snapshot()
    assert not bench.run(raise_on_error=False).success
    assert simulator.bill.totals.requests == 0
    assert "takes text only" in bench.rows(REJECTED)[0]["_error_message"]


def test_the_fallback_is_sent_the_image_too(
    make_bench: MakeBench, simulator: Simulator, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png(300, 300))
    prices = {"input_per_million_usd": "0.15", "output_per_million_usd": "0.60"}
    bench = make_bench(
        [{"id": "r", "text": "[[fault=refusal times=1]][[token=t]]", "photo": "a.png"}],
        prompt={"template": "{{ text }}", "images": [{"column": "photo"}]},
        llm={
            "provider": "openai_compatible",
            "name": "demo-model",
            "base_url": simulator.base_url,
            "prices": prices,
            "fallback": {"name": "larger-model", "prices": prices},
        },
    )
    bench.run_missing()
    assert len(bench.rows(REJECTED)) == 1
    bench.retry(classes="row")
    assert len(bench.rows(RESULTS)) == 1
    asked = bench.attempts("model_requested, prompt_tokens")
    assert [model for model, _ in asked] == ["demo-model", "larger-model"]
    assert min(tokens for _, tokens in asked) > 120


def test_a_plan_counts_images_and_fetches_none(
    make_bench: MakeBench, simulator: Simulator, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(png(10, 10))
    with RawServer(lambda peer: None) as server:
        rows = [row("path", "a.png"), row("url", f"http://{server.address}/b.png")]
        bench = photographed(make_bench, rows, files=HERE)
        bench.snapshot()
        snapshot = bench.pipeline.snapshot(bench.lake)
        keys = bench.partitions()
        plan = plan_rows(bench.pipeline, bench.lake, (bench.lake, snapshot), keys, keys, None)
        assert server.connections == 0
    assert plan.rows == {Need.NEW: 2}
    assert 1 + 1334 < plan.run.prompt_tokens < 2000  # the second picture has not been seen yet
    assert plan.run.most_tokens > 2 * 16_384
    assert not (bench.data / "attachments").exists()


# single cells


def test_a_path_may_not_lead_out_of_its_folder(tmp_path: Path) -> None:
    inside = tmp_path / "photos"
    inside.mkdir()
    (inside / "a.png").write_bytes(PNG)
    (tmp_path / "secret.png").write_bytes(PNG)
    (inside / "link.png").symlink_to(tmp_path / "secret.png")
    assert isinstance(read("a.png", inside), Attachment)
    assert isinstance(read(str(inside / "a.png"), inside), Attachment)
    for cell in ("../secret.png", str(tmp_path / "secret.png"), "link.png"):
        assert read(cell, inside) is ErrorCode.ATTACHMENT_INVALID
    for cell in (".", "a\0b", "a.png/b", "x" * 5000):
        assert read(cell, inside) is ErrorCode.ATTACHMENT_MISSING


@pytest.mark.behaviour("A-11")
def test_all_forms_have_the_same_cap(tmp_path: Path) -> None:
    data = png(50, 50)
    (tmp_path / "a.png").write_bytes(data)
    cells = ["a.png", f"data:image/png;base64,{in_base64(data)}", in_base64(data), data]
    for cell in cells:
        found = read(cell, tmp_path, max_bytes=len(data))
        assert isinstance(found, Attachment)
        assert read(cell, tmp_path, max_bytes=len(data) - 1) is ErrorCode.ATTACHMENT_TOO_LARGE
    assert len({read(cell, tmp_path) for cell in cells}) == 1, "one picture, one digest"


def test_a_number_names_no_file(tmp_path: Path) -> None:
    assert read(17, tmp_path) is ErrorCode.ATTACHMENT_MISSING


@pytest.mark.usefixtures("ctrl_c")
def test_an_interrupt_does_not_wait_for_a_slow_server(tmp_path: Path) -> None:
    def interrupt(peer: Peer) -> None:
        peer.request()
        os.kill(os.getpid(), signal.SIGINT)
        peer.wait_for_the_end()

    with RawServer(interrupt) as server:
        started = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            read(f"http://{server.address}/a.png", tmp_path, AttachmentStore(tmp_path), **HERE)
        assert time.monotonic() - started < 20, "the time of a file is 30 s, three times"


def test_memory_holds_a_few_files_whatever_the_number_of_rows(tmp_path: Path) -> None:
    size = 1_000_000
    for number in range(60):
        (tmp_path / f"{number}.png").write_bytes(png(1, 1, number) + bytes(size))
    prompt = Prompt.model_validate({"template": "x", "images": [{"column": "photo"}]})
    reader = AttachmentReader(prompt, lambda: tmp_path, AttachmentStore(tmp_path / "kept"))
    tracemalloc.start()
    try:
        found = reader.read([{"photo": f"{number}.png"} for number in range(60)])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len({one[0].sha256 for one in found if isinstance(one, tuple)}) == 60
    assert peak < 3 * FETCHED_AT_ONCE * size < 60 * size


@pytest.mark.parametrize("cell", ['["a.png", "", "b.png"]', ["a.png", None, "b.png"]])
def test_a_cell_may_name_several(cell: object, tmp_path: Path) -> None:
    for name, shade in {"a.png": 1, "b.png": 2}.items():
        (tmp_path / name).write_bytes(png(3, 3, shade))
    prompt = Prompt.model_validate({"template": "x", "images": [{"column": "photo"}]})
    reader = AttachmentReader(prompt, lambda: tmp_path, None)
    (found,) = reader.read([{"photo": cell}])
    assert isinstance(found, tuple)
    assert [one.sha256 for one in found] == [
        read(name, tmp_path).sha256 for name in ("a.png", "b.png")
    ]
    for broken in ('["a.png", "no.png"]', "[not json", "[1]"):
        assert read(broken, tmp_path) is ErrorCode.ATTACHMENT_MISSING
    assert read("[]", tmp_path) is ErrorCode.ATTACHMENT_MISSING


def test_a_file_that_several_rows_name_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    async def fetch(fetcher: fetching.Fetcher, url: str) -> bytes:
        fetched.append(url)
        return PNG

    monkeypatch.setattr(fetching.Fetcher, "fetch", fetch)
    prompt = Prompt.model_validate({"template": "x", "images": [{"column": "photo"}]})
    reader = AttachmentReader(prompt, lambda: tmp_path, AttachmentStore(tmp_path / "kept"))
    rows = [{"photo": f"https://images.test/{n % 3}.png"} for n in range(50)]
    found = reader.read(rows)
    assert sorted(fetched) == [f"https://images.test/{n}.png" for n in range(3)]
    assert len(found) == 50
    assert len(set(map(str, found))) == 1
