"""The bytes that are posted, as the library of protobuf reads them."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)

from ondine_dagster.observe.encoding import encode, rejected
from ondine_dagster.observe.spans import Span

# lengths at which a number takes one byte more, or a table ends
_LENGTHS = [0, 1, 122, 123, 124, 125, 126, 127, 128, 1023, 1024, 4092, 4095, 4096, 16_383, 70_000]
_COMMON = {"of all": "yes", "number": 7}


def _span(**changed: Any) -> Span:
    span = Span(
        b"t" * 16, b"s" * 8, b"p" * 8, "chat m", 1_700_000_000_000, 1_700_000_000_250, {}, {}
    )
    return span._replace(**changed)


def _read(*spans: Span) -> list[Any]:
    message = ExportTraceServiceRequest.FromString(encode(spans, "my-service"))
    (resource,) = message.resource_spans
    (scope,) = resource.scope_spans
    assert scope.scope.name == "ondine_dagster"
    assert _attributes(resource.resource) == {"service.name": "my-service"}
    return list(scope.spans)


def _attributes(holder: Any) -> dict[str, Any]:
    return {one.key: _value(one.value) for one in holder.attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)


def test_a_span_is_read_as_it_was_made() -> None:
    failed = _span(error="capacity: rate_limited", calls=True)
    root = _span(parent_id=None)
    for read, made in zip(_read(failed, root), (failed, root), strict=True):
        assert (read.trace_id, read.span_id) == (made.trace_id, made.span_id)
        assert read.parent_span_id == (made.parent_id or b"")
        assert read.name == made.name
        assert read.kind == (read.SPAN_KIND_CLIENT if made.calls else read.SPAN_KIND_INTERNAL)
        assert read.start_time_unix_nano == made.started * 1_000_000
        assert read.end_time_unix_nano == made.ended * 1_000_000
        assert read.status.message == (made.error or "")
        assert read.status.code == (2 if made.error else 0)


@pytest.mark.parametrize("letter", ["a", "ü", "🦑"])
def test_texts_of_any_length(letter: str) -> None:
    texts = {f"k{size}": letter * size for size in _LENGTHS}
    long_key = {"k" * size: "v" for size in _LENGTHS[1:]}
    (read,) = _read(_span(texts=texts, attributes=long_key, common=_COMMON))
    assert _attributes(read) == _COMMON | long_key | texts


def test_values_of_every_kind() -> None:
    values = {
        "zero": 0,
        "large": 2**63 - 1,
        "negative": -5,
        "half": 0.5,
        "yes": True,
        "no": False,
        "list": ["stop", "length"],
        "empty list": [],
    }
    (read,) = _read(_span(attributes=values))
    found = _attributes(read)
    assert found == values
    assert {name: type(one) for name, one in found.items()} == {
        name: type(one) for name, one in values.items()
    }


def test_what_spans_share_is_in_each_of_them() -> None:
    other = {"of all": "no"}
    spans = [_span(common=one) for one in (_COMMON, other, _COMMON)]
    assert [_attributes(one) for one in _read(*spans)] == [_COMMON, other, _COMMON]


@pytest.mark.parametrize(("count", "why"), [(0, ""), (3, ""), (0, "a warning"), (70_000, "ü" * 99)])
def test_what_a_host_says_is_read(count: int, why: str) -> None:
    said = ExportTraceServiceResponse()
    said.partial_success.rejected_spans, said.partial_success.error_message = count, why
    more = b"\x10\x07" + b"\x19" + b"8" * 8 + b"\x25" + b"4" * 4  # fields that nobody knows yet
    assert rejected(said.SerializeToString() + more) == (count, why)
    assert rejected(b"") == (0, "")


@pytest.mark.parametrize(
    "body", [b"OK", b"<html>", b"{}", b"\x0a\x05a", b"\x0a", b"\x08" + b"\xff" * 20]
)
def test_what_is_no_answer_of_a_trace_host_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"wire type|cut off"):
        rejected(body)
