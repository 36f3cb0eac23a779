"""What waits is sent once, whole, and marked only when the host has said so."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Sequence

import pytest
from pydantic import SecretStr

from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.observe import outbox
from ondine_dagster.observe.otlp import Answer, Delivered
from ondine_dagster.observe.outbox import EXPORTED, LEFT_OUT, REFUSED, WAITING
from ondine_dagster.observe.push import Pushed
from ondine_dagster.observe.spans import Span
from ondine_dagster_tests.engine.raw_server import Peer, RawServer, reply
from ondine_dagster_tests.ledger.builders import answered, execute, go, request
from ondine_dagster_tests.observe.pushing import InMemory, destination, fill, push, states
from ondine_dagster_tests.observe.trace_host import Says, TraceHost


@pytest.mark.parametrize("count", [4500, pytest.param(20_000, marks=pytest.mark.slow)])
def test_as_many_arrive_as_have_waited(ledger: Ledger, count: int) -> None:
    fill(ledger.database, count)
    with TraceHost() as host:
        done = push(ledger.database, destination(host.url))
    assert done == Pushed(exported=count)
    assert len(host.requests) == count
    assert set(host.counts().values()) == {1}
    assert len(host.roots) == 1
    assert max(host.sizes) <= 512, "smaller than the queue of any exporter"
    assert states(ledger.database) == {EXPORTED: count}


@pytest.mark.behaviour("E-3")
def test_a_thousand_requests_stand_under_one_root(ledger: Ledger) -> None:
    fill(ledger.database, 500)
    fill(ledger.database, 500, first=500, t_open=2_000_000, t_end=2_000_900)
    memory = InMemory()
    push(ledger.database, destination(), memory)
    (root,) = [one for one in memory.spans if one.parent_id is None]
    children = [one for one in memory.spans if one is not root]
    assert len({one.span_id for one in children}) == 1000
    assert {one.parent_id for one in children} == {root.span_id}
    assert {one.trace_id for one in memory.spans} == {root.trace_id}
    assert (root.started, root.ended) == (1_000_000, 2_000_900)


def test_each_run_and_each_partition_has_a_trace_of_its_own(ledger: Ledger) -> None:
    for number, (run, partition) in enumerate([("a", "p0"), ("a", "p1"), ("b", "p0")]):
        fill(ledger.database, 1, first=number, run_id=run, partition=partition)
    memory = InMemory()
    push(ledger.database, destination(), memory)
    assert len({one.trace_id for one in memory.spans}) == 3
    assert {one.name for one in memory.spans if one.parent_id is None} == {
        "reviews/responses p0",
        "reviews/responses p1",
    }


def test_what_is_sent_again_doubles_nothing(ledger: Ledger) -> None:
    fill(ledger.database, 20)
    with TraceHost() as host:
        push(ledger.database, destination(host.url))
        first = list(host.spans)
        assert push(ledger.database, destination(host.url)) == Pushed()
        assert len(host.spans) == len(first), "nothing waits: nothing is sent"
        assert outbox.queue_again(ledger.database, since_ms=0) == 20
        push(ledger.database, destination(host.url))
    assert {one.span_id for one in host.spans} == {one.span_id for one in first}
    assert host.spans[len(first) :] == first


class _Killed(BaseException):
    """The end of the process."""


class _DiesAfter(InMemory):
    """Takes a number of posts; the process dies before the next one, or while it is marked."""

    def __init__(self, posts: int, *, taken: bool) -> None:
        super().__init__()
        self._left = posts
        self._taken = taken

    def post(self, spans: Sequence[Span], seconds: float) -> Answer:
        if not self._left:
            if self._taken:
                super().post(spans, seconds)
            raise _Killed
        self._left -= 1
        return super().post(spans, seconds)


@pytest.mark.parametrize("taken", [False, True])
def test_an_exporter_that_is_killed_between_posts_loses_nothing(
    ledger: Ledger, taken: bool
) -> None:
    fill(ledger.database, 2000)
    dying = _DiesAfter(2, taken=taken)
    with pytest.raises(_Killed):
        push(ledger.database, destination(), dying)
    sent = states(ledger.database)[EXPORTED]
    assert 0 < sent < 2000
    rest = InMemory()
    assert push(ledger.database, destination(), rest).exported == 2000 - sent
    everything = [one.span_id for one in (*dying.spans, *rest.spans) if one.parent_id]
    assert len(set(everything)) == 2000
    # what the host had taken and nobody had noted comes again, under the same ids
    assert len(everything) == 2000 + (len(dying.spans) - sent if taken else 0)


@pytest.mark.behaviour("E-3b")
@pytest.mark.parametrize(("status", "words"), [(401, "see OTEL_EXPORTER"), (500, "answers 500")])
def test_a_host_that_refuses_keeps_everything_waiting(
    ledger: Ledger, status: int, words: str
) -> None:
    fill(ledger.database, 600)
    with TraceHost(Says(status)) as host:
        done = push(ledger.database, destination(host.url))
        assert (done.exported, done.waiting) == (0, 600)
        assert done.trouble and words in done.trouble
        assert len(host.posts) == 1, "it is not hammered"
        host.says = [Says()]
        assert push(ledger.database, destination(host.url)) == Pushed(exported=600)
    assert len(host.requests) == 600


def test_no_secret_is_told_of_a_host_that_repeats_what_it_gets(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    fill(ledger.database, 1)
    heads: list[bytes] = []

    def echo(peer: Peer) -> None:
        heads.append(peer.request().partition(b"\r\n\r\n")[0])
        peer.send(reply(heads[0], status="401 Unauthorized"))

    with RawServer(echo) as server:
        to = destination(f"http://{server.address}", headers={"x-key": SecretStr("canary-42")})
        done = push(ledger.database, to)
    with ledger.database.read() as connection:
        kept = outbox.status(connection)
    assert b"x-key: canary-42" in heads[0]
    assert "canary-42" not in f"{done} {kept} {to!r} {caplog.text}"


def test_a_host_that_limits_is_asked_again_when_it_says(ledger: Ledger) -> None:
    fill(ledger.database, 1200)
    with TraceHost(Says(), Says(429, retry_after="0.05"), Says(503, "0.01"), Says()) as host:
        assert push(ledger.database, destination(host.url)) == Pushed(exported=1200)
    assert len(host.requests) == 1200
    assert set(host.counts().values()) == {1}


def test_a_host_that_asks_for_a_long_pause_gets_it(ledger: Ledger) -> None:
    fill(ledger.database, 1)
    with TraceHost(Says(429, retry_after="3600")) as host:
        done = push(ledger.database, destination(host.url))
    assert (done.exported, done.waiting, len(host.posts)) == (0, 1, 1)


def test_nobody_listens(ledger: Ledger) -> None:
    fill(ledger.database, 3)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    done = push(ledger.database, destination(url))
    assert (done.exported, done.waiting) == (0, 3)
    assert done.trouble == f"{url}/v1/traces cannot be reached: Connection refused"


def test_a_black_hole_costs_the_time_that_there_is(ledger: Ledger) -> None:
    fill(ledger.database, 1000)
    with RawServer(lambda peer: peer.wait_for_the_end()) as hole:
        began = time.monotonic()
        done = push(ledger.database, destination(f"http://{hole.address}"), seconds=0.3)
        assert time.monotonic() - began < 5
    assert (done.exported, done.waiting) == (0, 1000)
    assert done.trouble and "no answer" in done.trouble


def test_a_slow_host_gets_everything(ledger: Ledger) -> None:
    fill(ledger.database, 1200)
    with TraceHost(Says(seconds=0.1)) as host:
        assert push(ledger.database, destination(host.url)).exported == 1200
    assert len(host.requests) == 1200


def test_one_request_that_the_host_does_not_take_keeps_no_other_back(ledger: Ledger) -> None:
    fill(ledger.database, 300)
    with TraceHost() as host:
        host.refuses = ["r77"]
        done = push(ledger.database, destination(host.url), messages=None)
    # r77 is refused with its texts and without
    assert (done.exported, done.refused, done.waiting) == (299, 1, 0)
    assert len(host.requests) == 299
    assert states(ledger.database) == {EXPORTED: 299, REFUSED: 1}


def test_a_text_that_the_host_does_not_take_is_left_out(ledger: Ledger) -> None:
    fill(ledger.database, 20)
    fill(ledger.database, 1, first=20, text="too long")
    with TraceHost() as host:
        host.refuses = ["too long"]
        done = push(ledger.database, destination(host.url))
    assert (done.exported, done.refused) == (21, 0)
    (bare,) = [one for one in host.requests if one["ondine.row_key"] == "r20"]
    assert "gen_ai.output.messages" not in bare.attributes


def test_a_host_that_takes_nothing_loses_nothing(ledger: Ledger) -> None:
    """A wrong address may well answer 400 to everything: that says nothing of the spans."""
    fill(ledger.database, 300)
    with TraceHost(Says(400)) as host:
        done = push(ledger.database, destination(host.url))
        assert (done.refused, done.waiting) == (0, 300)
        assert done.trouble and "answers 400, even for a single span" in done.trouble
        assert len(host.posts) == 2


@pytest.mark.parametrize(
    ("says", "words"),
    [
        (Says(429, retry_after="3600"), "answers 429 and asks to wait for 3600 s"),
        (Says(404), "answers 404: see OTEL_EXPORTER_OTLP_ENDPOINT"),
        (Says(302), "answers 302, which is not followed: see OTEL_EXPORTER_OTLP_ENDPOINT"),
        (Says(rejects=1), "takes only some spans: no room, even for a single span"),
    ],
)
def test_what_a_host_says_is_told_in_a_sentence(ledger: Ledger, says: Says, words: str) -> None:
    fill(ledger.database, 2)
    with TraceHost(says) as host:
        done = push(ledger.database, destination(host.url))
    assert done.trouble == f"{host.url}/v1/traces {words}"
    assert done.waiting == 2


def test_spans_that_a_host_drops_although_it_says_200_are_found(ledger: Ledger) -> None:
    fill(ledger.database, 8)
    with TraceHost(Says(rejects=1), Says()) as host:  # the probe is the second post
        done = push(ledger.database, destination(host.url))
    assert done.exported == 8
    assert len({one.span_id for one in host.requests}) == 8


def test_a_request_that_is_settled_twice_is_sent_as_it_is_now(ledger: Ledger) -> None:
    (one,) = fill(ledger.database, 1)
    execute(ledger.database, "INSERT INTO outbox (attempt) VALUES (?)", one)
    memory = InMemory()
    assert push(ledger.database, destination(), memory) == Pushed(exported=1)
    assert len(memory.spans) == 2
    assert states(ledger.database) == {EXPORTED: 2}


def test_errors_are_always_sent_and_of_the_others_as_many_as_are_wanted(ledger: Ledger) -> None:
    fill(ledger.database, 1000)
    fill(ledger.database, 5, first=1000, **{"class": "capacity", "code": "rate_limited"})
    fill(ledger.database, 5, first=1005, state="unknown")
    errors = InMemory()
    done = push(ledger.database, destination(sample_percent=0.0), errors)
    assert (done.exported, done.left_out, done.waiting) == (10, 1000, 0)
    assert states(ledger.database) == {EXPORTED: 10, LEFT_OUT: 1000}
    outbox.queue_again(ledger.database, 0)
    some = InMemory()
    done = push(ledger.database, destination(sample_percent=20.0), some)
    assert 120 < done.exported < 300
    outbox.queue_again(ledger.database, 0)
    again = InMemory()
    push(ledger.database, destination(sample_percent=20.0), again)
    assert [one.span_id for one in some.spans] == [one.span_id for one in again.spans]


def test_an_answer_that_is_no_good_is_an_error(ledger: Ledger) -> None:
    fill(ledger.database, 1)
    execute(ledger.database, "UPDATE asks SET verdict = 'truncated'")
    execute(ledger.database, "UPDATE answers SET verdict = 'truncated', code = 'truncated'")
    memory = InMemory()
    push(ledger.database, destination(sample_percent=0.0), memory)
    (span,) = [one for one in memory.spans if one.parent_id]
    assert span.error == "truncated"


def test_runs_that_wanted_no_traces_can_be_sent_later(ledger: Ledger) -> None:
    fill(ledger.database, 3, traced=0)
    execute(ledger.database, "DELETE FROM outbox")
    assert push(ledger.database, destination(), InMemory()) == Pushed()
    assert outbox.queue_again(ledger.database, since_ms=0) == 3
    assert push(ledger.database, destination(), InMemory()).exported == 3


def test_only_what_ended_since_is_sent_again(ledger: Ledger) -> None:
    fill(ledger.database, 2, t_end=1_000_500)
    fill(ledger.database, 3, first=2, t_end=9_000_000)
    push(ledger.database, destination(), InMemory())
    assert outbox.queue_again(ledger.database, since_ms=5_000_000) == 3
    assert states(ledger.database)[WAITING] == 3


def test_a_root_that_a_run_goes_on_to_lengthen_is_sent_once_by_each_push(ledger: Ledger) -> None:
    fill(ledger.database, 1)

    class Meanwhile(InMemory):
        def post(self, spans: Sequence[Span], seconds: float) -> Answer:
            if spans[0].parent_id is None:
                execute(ledger.database, "UPDATE traces SET ended = ended + 1, exported = 0")
            return super().post(spans, seconds)

    memory = Meanwhile()
    for roots in (1, 2):
        push(ledger.database, destination(), memory)
        ends = [one.ended for one in memory.spans if not one.parent_id]
        assert len(ends) == roots
    assert ends[0] < ends[1]


def test_roots_alone_are_a_push_too(ledger: Ledger) -> None:
    """Of errors only, where there are none."""
    ledger.settle(answered(go(ledger, request("q", trace_percent=0.0))))
    memory = InMemory()
    assert push(ledger.database, destination(sample_percent=0.0), memory) == Pushed()
    assert [one.parent_id for one in memory.spans] == [None]
    with ledger.database.read() as connection:
        assert outbox.status(connection).last_push_ms is not None


def test_two_do_not_push_at_once(ledger: Ledger) -> None:
    fill(ledger.database, 1)

    class Meanwhile(InMemory):
        other: Pushed | None = None

        def post(self, spans: Sequence[Span], seconds: float) -> Answer:
            if self.other is None:
                self.other = push(ledger.database, destination(), InMemory(), seconds=0.0)
            return Delivered()

    first = Meanwhile()
    assert push(ledger.database, destination(), first).exported == 1
    assert first.other is not None
    assert first.other == Pushed(waiting=1, trouble="another process is sending traces")


def test_a_crowd_of_prompts_is_read_in_pieces(ledger: Ledger) -> None:
    fill(ledger.database, 40, request_bytes=2**20)
    seen: list[int] = []
    with ledger.database.read() as connection:
        seen.append(len(outbox.window(connection, 4096, 16 * 2**20)))
    assert seen == [16]
    assert push(ledger.database, destination(), InMemory()).exported == 40
