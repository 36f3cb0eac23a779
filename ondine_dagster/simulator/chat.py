"""What the simulator reads from a chat completion request. Pure.

Owns the parsing of the request body, the identity of a prompt on the bill, and nothing about
answers or faults.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ondine_dagster.simulator.attachments import BadAttachment, attachment_tokens
from ondine_dagster.simulator.packs import Pack, read_pack
from ondine_dagster.simulator.tokens import TokenRules

_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


class BadRequest(Exception):
    """The body is no chat completion request; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One parsed request: what decides the answer, its ceiling and its place on the bill.

    `schema` is what the answer is to fit; `told`: the messages say so, nothing else. `tool` is the
    function whose arguments are to be the answer. `document` is the whole of the request, for what
    only one dialect knows, and so are `headers`. `pack`: it asks about many rows at once; `prompt`,
    its place on the bill, does not depend on their codes then.
    """

    model: str
    messages: Sequence[Mapping[str, Any]]
    schema: Mapping[str, Any] | None
    ceiling: int | None
    prompt: str
    document: Mapping[str, Any]
    told: bool = False
    tool: str | None = None
    headers: Mapping[bytes, bytes] = field(default_factory=dict)
    attachment_tokens: int = field(init=False)
    pack: Pack | None = field(init=False)

    def __post_init__(self) -> None:
        """Raise BadRequest for an image or a document that is none."""
        try:
            tokens = attachment_tokens(self.messages)
        except BadAttachment as error:
            raise BadRequest(str(error)) from None
        object.__setattr__(self, "attachment_tokens", tokens)
        pack = read_pack(last_user_text(self.messages), self.schema)
        object.__setattr__(self, "pack", pack)
        if pack is not None:
            before = prompt_sha256(self.messages[:-1])
            object.__setattr__(self, "prompt", pack.identity(before))

    @property
    def text(self) -> str:
        """All text of all messages, one block per message."""
        return "\n".join(content_text(message) for message in self.messages)

    def prompt_tokens(self, rules: TokenRules) -> int:
        """Return the tokens of all texts and attachments, and of the schema, which is input too."""
        schema = _CANONICAL.encode(self.schema) if self.schema and not self.told else ""
        text = "".join(map(content_text, self.messages)) + schema
        return rules.count(text) + self.attachment_tokens


def prompt_sha256(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the identity of a prompt on the bill: sha256 over the canonical JSON of `messages`."""
    return hashlib.sha256(_CANONICAL.encode(messages).encode("ascii")).hexdigest()


def last_user_text(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the text of the last message of the user, of the last message where there is none."""
    spoken = (m for m in reversed(messages) if m.get("role") == "user")
    return content_text(next(spoken, messages[-1] if messages else {}))


def content_text(message: Mapping[str, Any]) -> str:
    """Return the text of one message; the text parts joined where its content is a list."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    parts = (part.get("text") for part in content if isinstance(part, dict))
    return "\n".join(part for part in parts if isinstance(part, str))


def marked_prefix(messages: Sequence[Mapping[str, Any]]) -> tuple[str, str] | None:
    """Return the text up to the last part that is marked for a cache, and for how long: 5m, 1h."""
    found, text = None, ""
    for message in messages:
        text += content_text(message)
        content = message.get("content")
        for part in content if isinstance(content, list) else ():
            if mark := part.get("cache_control"):
                found = text, str(mark.get("ttl", "5m"))
    return found


def read_request(body: bytes | bytearray) -> ChatRequest:
    """Parse a request body.

    Raises BadRequest where it is not a JSON object with a model and at least one message.
    """
    return read_document(json_object(body))


def read_document(document: Mapping[str, Any]) -> ChatRequest:
    """Read a request. Raises BadRequest where it has no model or no message."""
    model, messages = document.get("model"), document.get("messages")
    if not isinstance(model, str) or not model:
        raise BadRequest("you must provide a model parameter")
    if not isinstance(messages, list) or not messages:
        raise BadRequest("'messages' must be a non-empty list")
    if not all(isinstance(message, dict) for message in messages):
        raise BadRequest("every entry of 'messages' must be an object")
    tool, parameters = _forced_tool(document)
    constrained = parameters or _schema(document.get("response_format"))
    return ChatRequest(
        model=model,
        messages=messages,
        schema=constrained or told_schema(document, messages),
        ceiling=_ceiling(document),
        prompt=prompt_sha256(messages),
        document=document,
        told=constrained is None,
        tool=tool,
    )


def json_object(body: bytes | bytearray) -> dict[str, Any]:
    """Parse a request body. Raises BadRequest where it is no JSON object."""
    try:
        document = json.loads(body)
    except ValueError as error:
        raise BadRequest(f"we could not parse the JSON body of your request: {error}") from error
    if not isinstance(document, dict):
        raise BadRequest("the body of the request must be a JSON object")
    return document


def _schema(response_format: Any) -> Mapping[str, Any] | None:
    if not isinstance(response_format, dict):
        return None
    wrapper = response_format.get("json_schema")
    schema = wrapper.get("schema") if isinstance(wrapper, dict) else None
    return schema if isinstance(schema, dict) else None


def _forced_tool(document: Mapping[str, Any]) -> tuple[str | None, Mapping[str, Any] | None]:
    """Return name and parameters of the function that must be called, if there is one."""
    choice, tools = document.get("tool_choice"), document.get("tools")
    if not isinstance(choice, dict) or not isinstance(tools, list):
        return None, None
    for tool in tools:
        function = tool.get("function") if isinstance(tool, dict) else None
        if isinstance(function, dict) and choice.get("function") == {"name": function.get("name")}:
            return function["name"], function.get("parameters")
    raise BadRequest("'tool_choice' names no function of 'tools'")


def told_schema(
    document: Mapping[str, Any], messages: Sequence[Mapping[str, Any]]
) -> Mapping[str, Any] | None:
    """Return the schema that the system message tells in its last line, as a good model reads it.

    In JSON mode without one, any object will do.
    """
    json_mode = document.get("response_format") == {"type": "json_object"}
    told = "\n".join(content_text(one) for one in messages if one.get("role") == "system")
    if json_mode and "json" not in "".join(map(content_text, messages)).lower():
        raise BadRequest("'messages' must contain the word 'json' in some form")
    try:
        schema = json.loads(told.rpartition("\n")[2])
    except ValueError:
        schema = None
    if isinstance(schema, dict) and "properties" in schema:
        return schema
    return {"type": "object", "properties": {"answer": {"type": "string"}}} if json_mode else None


def _ceiling(document: Mapping[str, Any]) -> int | None:
    ceiling = document.get("max_completion_tokens", document.get("max_tokens"))
    if ceiling is None:
        return None
    if not isinstance(ceiling, int) or isinstance(ceiling, bool) or ceiling < 1:
        raise BadRequest("'max_tokens' must be an integer of at least 1")
    return ceiling
