"""The bytes of OTLP: requests written without an object for each field, and what is said to them.

The messages are those of
https://github.com/open-telemetry/opentelemetry-proto/blob/main/opentelemetry/proto/trace/v1/trace.proto,
their bytes as https://protobuf.dev/programming-guides/encoding says. Objects of the protobuf
library take twice the time, and there is a span for each row; so nobody has to install it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from struct import Struct

from ondine_dagster.observe.spans import Span, Value

_INTERNAL, _CLIENT, _ERROR = 1, 3, 2  # of Span.SpanKind and Status.StatusCode
_SCOPE = b"ondine_dagster"
# the tags of start and end, and nanoseconds since the epoch
_times = Struct("<BQBQ").pack
_double = Struct("<d").pack


def encode(spans: Sequence[Span], service_name: str) -> bytes:
    """Return an ExportTraceServiceRequest with these spans."""
    commons: dict[int, bytes] = {}  # by identity: all spans are here until the end
    parts = [_field(b"\x0a", _field(b"\x0a", _SCOPE))]
    for span in spans:
        common = commons.get(id(span.common))
        if common is None:
            common = commons[id(span.common)] = _attributes(b"\x4a", span.common)
        parts.append(_field(b"\x12", _span(span, common)))
    resource = _field(b"\x0a", _attributes(b"\x0a", {"service.name": service_name}))
    return _field(b"\x0a", resource + _field(b"\x12", b"".join(parts)))


def _span(span: Span, common: bytes) -> bytes:
    parent, error = span.parent_id, span.error
    return b"".join(
        (
            b"\x0a\x10%b\x12\x08%b" % (span.trace_id, span.span_id),
            b"" if parent is None else b"\x22\x08" + parent,
            _name(span.name, _CLIENT if span.calls else _INTERNAL),
            _times(0x39, span.started * 1_000_000, 0x41, span.ended * 1_000_000),
            common,
            _attributes(b"\x4a", span.attributes),
            _attributes(b"\x4a", span.texts),
            b"" if error is None else _field(b"\x7a", _status(error)),
        )
    )


@cache
def _name(name: str, kind: int) -> bytes:
    return _field(b"\x2a", name.encode()) + b"\x30" + _varint(kind)


def _status(message: str) -> bytes:
    return _field(b"\x12", message.encode()) + b"\x18" + _varint(_ERROR)


def _attributes(tag: bytes, values: Mapping[str, Value]) -> bytes:
    parts: list[bytes] = []
    for name, value in values.items():
        key = _key(name)
        if type(value) is str:  # nearly all of them
            body = value.encode()
            size = len(body)
            head = _STRINGS[size] if size < _SHORT else _string_head(size)
        else:
            body = _any(value)
            head = _SIZES[len(body)] if len(body) < _MANY else _varint(len(body))
        size = len(key) + len(head) + len(body)
        parts += (tag, _SIZES[size] if size < _MANY else _varint(size), key, head, body)
    return b"".join(parts)


@cache
def _key(name: str) -> bytes:
    """Return the key of a KeyValue, and the tag of its value."""
    return _field(b"\x0a", name.encode()) + b"\x12"


def _any(value: Value) -> bytes:
    """Return an AnyValue."""
    if isinstance(value, str):
        return _field(b"\x0a", value.encode())
    if isinstance(value, bool):
        return b"\x10\x01" if value else b"\x10\x00"
    if isinstance(value, int):
        return b"\x18" + _varint(value)
    if isinstance(value, float):
        return b"\x21" + _double(value)
    return _field(b"\x2a", b"".join([_field(b"\x0a", _any(one)) for one in value]))


def _field(tag: bytes, body: bytes) -> bytes:
    """Return a field of the wire type LEN."""
    size = len(body)
    return tag + (_SIZES[size] if size < _MANY else _varint(size)) + body


def _varint(value: int) -> bytes:
    value &= 2**64 - 1  # negative ones as in two's complement
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    found.append(value)
    return bytes(found)


def _string_head(size: int) -> bytes:
    """Return what stands before the bytes of a text in a KeyValue, after the tag of its value."""
    inner = b"\x0a" + _varint(size)
    return _varint(len(inner) + size) + inner


def rejected(body: bytes) -> tuple[int, str]:
    """Return how many spans an ExportTraceServiceResponse says were rejected, and why.

    Raises ValueError where it is none.
    """
    partial = _fields(body).get(1, b"")
    told = _fields(partial) if isinstance(partial, bytes) else {}
    count, why = told.get(1, 0), told.get(2, b"")
    if not isinstance(count, int) or not isinstance(why, bytes):
        raise ValueError("not an ExportTraceServiceResponse")
    return count, why.decode()


def _fields(body: bytes) -> dict[int, int | bytes]:
    """Return the fields of a message by their numbers."""
    found: dict[int, int | bytes] = {}
    at = 0
    while at < len(body):
        tag, at = _read_varint(body, at)
        kind = tag & 7
        if kind == 0:
            found[tag >> 3], at = _read_varint(body, at)
            continue
        if kind == 2:
            size, at = _read_varint(body, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise ValueError(f"wire type {kind}")
        if at + size > len(body):
            raise ValueError("cut off")
        found[tag >> 3] = body[at : at + size]
        at += size
    return found


def _read_varint(body: bytes, at: int) -> tuple[int, int]:
    """Return a number, and where the next field begins."""
    value = 0
    for place in range(at, min(at + 10, len(body))):
        value |= (body[place] & 0x7F) << 7 * (place - at)
        if body[place] < 0x80:
            return value, place + 1
    raise ValueError("cut off")


_SHORT, _MANY = 1024, 4096
_STRINGS = [_string_head(size) for size in range(_SHORT)]
_SIZES = [_varint(size) for size in range(_MANY)]
