"""What Anthropic's Messages API takes as a request, and what it refuses. Pure.

https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ondine_dagster.simulator.chat import (
    BadRequest,
    ChatRequest,
    content_text,
    json_object,
    marked_prefix,
    prompt_sha256,
    told_schema,
)
from ondine_dagster.simulator.dialects.dialect import Headers

_FIELDS = frozenset(
    "cache_control max_tokens messages metadata model output_config service_tier stop_sequences "
    "system temperature thinking tool_choice tools top_k top_p".split()
)
_NOT_IN_A_SCHEMA = frozenset(
    {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf", "minLength",
     "maxLength", "maxItems"}
)  # fmt: skip
_MOST_UNIONS, _MOST_OPTIONAL = 16, 24


def read_messages(headers: Headers, body: bytes) -> ChatRequest:
    """Return the request, its system message as a first one. Raises BadRequest."""
    if b"anthropic-version" not in headers:
        raise BadRequest("anthropic-version: header is required")
    document = json_object(body)
    for name in document.keys() - _FIELDS:
        raise BadRequest(f"{name}: Extra inputs are not permitted")
    messages = [*_system(document), *_messages(document)]
    _refuse_sampling(document)
    if not isinstance(document.get("model"), str):
        raise BadRequest("model: Field required")
    constrained = _schema(document)
    return ChatRequest(
        model=document["model"],
        messages=messages,
        schema=constrained or told_schema(document, messages),
        ceiling=_ceiling(document),
        prompt=prompt_sha256(messages),
        document=document,
        told=constrained is None,
    )


def _system(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the system message as other providers have it, if there is one."""
    system = document.get("system")
    if system is None:
        return
    text = system if isinstance(system, str) else content_text({"content": system})
    if not text:
        raise BadRequest("system: text content blocks must be non-empty")
    yield {"role": "system", "content": text}


def _messages(document: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    messages = document.get("messages")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("messages: at least one message is required")
    for number, message in enumerate(messages):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in ("user", "assistant"):
            raise BadRequest(f"messages.{number}.role: use 'user' or 'assistant', not {role!r}")
        if not message.get("content"):
            raise BadRequest(f"messages.{number}: content must be non-empty")
        yield message


def marked_for(request: ChatRequest) -> tuple[str, str] | None:
    """Return the text that shall stay in the cache, and for how long; None where none shall."""
    system = {"content": request.document.get("system")}
    return marked_prefix([system, *request.document["messages"]])


def _refuse_sampling(document: Mapping[str, Any]) -> None:
    for name in ("temperature", "top_p"):
        value = document.get(name, 1)
        if type(value) not in (int, float) or not 0 <= value <= 1:
            raise BadRequest(f"{name}: range: 0..1")
    if "temperature" in document and "top_p" in document:
        both = "`temperature` and `top_p` cannot both be specified for this model."
        raise BadRequest(both + " Please use only one.")


def _ceiling(document: Mapping[str, Any]) -> int:
    ceiling = document.get("max_tokens")
    if ceiling is None:
        raise BadRequest("max_tokens: Field required")
    if type(ceiling) is not int or ceiling < 1:
        raise BadRequest("max_tokens: must be greater than or equal to 1")
    return ceiling


def _schema(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the schema of the answer, by output format or by the one tool that is forced."""
    tool = forced_tool(document)
    if tool is not None:
        schema = tool.get("input_schema")
        return schema if isinstance(schema, dict) else None
    output = document.get("output_config")
    wanted = output.get("format") if isinstance(output, dict) else None
    if not isinstance(wanted, dict):
        return None
    schema = wanted.get("schema")
    if wanted.get("type") != "json_schema" or not isinstance(schema, dict):
        raise BadRequest("output_config.format: a json_schema with a schema is required")
    _refuse_schema(schema)
    return schema


def _refuse_schema(schema: Mapping[str, Any]) -> None:
    """Refuse what constrained answers do not take.

    https://platform.claude.com/docs/en/build-with-claude/structured-outputs
    """
    if schema.get("additionalProperties") is not False:
        raise BadRequest("output_config.format.schema: 'additionalProperties' must be false")
    properties = schema.get("properties", {})
    for name, field in properties.items():
        if bad := sorted(field.keys() & _NOT_IN_A_SCHEMA):
            raise BadRequest(f"output_config.format.schema: {name}: {bad[0]} is not supported")
        if "enum" in field and isinstance(field.get("type"), list):
            first, kinds = field["enum"][0], field["type"]
            text = f"Enum value {first!r} does not match declared type '{kinds}'"
            raise BadRequest(f"output_config.format.schema: Invalid schema: {text}")
    unions = [one for one in properties.values() if isinstance(one.get("type"), list)]
    optional = properties.keys() - set(schema.get("required", ()))
    if len(unions) > _MOST_UNIONS or len(optional) > _MOST_OPTIONAL:
        raise BadRequest("output_config.format.schema: Schema is too complex")


def forced_tool(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the tool that the model must use."""
    choice = document.get("tool_choice")
    if not isinstance(choice, dict) or choice.get("type") != "tool":
        return None
    tools = document.get("tools")
    for tool in tools if isinstance(tools, list) else []:
        if isinstance(tool, dict) and tool.get("name") == choice.get("name"):
            return tool
    raise BadRequest("tool_choice: the tool is not among the tools")
