"""Anthropic's Messages API: the request, and its prompt cache.

The system message stands beside the messages, the ceiling is required, and a marked system message
is kept by Anthropic, so that later requests read it for a tenth of its price
(https://platform.claude.com/docs/en/api/messages).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import SecretStr

from ondine_dagster.llm.anthropic_reply import parse_message
from ondine_dagster.llm.anthropic_schema import constraining
from ondine_dagster.llm.asking_for_fields import FieldsRequest
from ondine_dagster.llm.attachments import Attachment
from ondine_dagster.llm.capabilities import capabilities_of
from ondine_dagster.llm.chat import ChatCompletions
from ondine_dagster.llm.prompt_cache import marked
from ondine_dagster.llm.provider import Completion, Schema
from ondine_dagster.llm.structured import compact_json
from ondine_dagster.spec import AnthropicSettings, Llm

VERSION = "2023-06-01"
# What Anthropic puts before the system message where it constrains an answer, or offers a tool:
# https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview
_CONSTRAINED_TOKENS = 1024
_START_OF_SYSTEM, _END_OF_SYSTEM = '[{"content":', ',"role":"system"},'


class Anthropic(ChatCompletions):
    """One model of Anthropic.

    The end of what is the same for all rows is marked for the cache: of the system message, or of
    the last example. A message that differs by row is not, it would only be paid to write.
    """

    path: ClassVar[str] = "messages"
    static_messages = 0

    def __init__(self, llm: Llm, schema: Schema | None) -> None:
        super().__init__(llm, schema)
        time = (llm.anthropic or AnthropicSettings()).cache
        self._mark = "" if time == "none" else compact_json(_cache_control(time))

    def headers(self, key: SecretStr | None) -> dict[str, str]:
        """Return the request headers; `x-api-key` only where there is a key."""
        headers = super().headers(None) | {"anthropic-version": VERSION}
        if key is not None:
            headers["x-api-key"] = key.get_secret_value()
        return headers

    def body(self, messages_json: str, ceiling: int) -> bytes:
        """Return the request body, the system message on top."""
        own_system = _END_OF_SYSTEM in messages_json
        examples = max(0, self.static_messages - own_system)
        messages = self._messages(messages_json)
        system = ""
        # text in a JSON string has no bare quotes, so this is where the message ends
        end = messages.find(_END_OF_SYSTEM)
        if end >= 0:
            text = messages[len(_START_OF_SYSTEM) : end]
            messages = "[" + messages[end + len(_END_OF_SYSTEM) :]
            if text != '""':  # a template may come to nothing, which is refused
                same = self.static_messages > 0 or not own_system
                system = f',"system":{self._marked(text) if same and not examples else text}'
        if examples and self._mark:
            messages = marked(messages, examples, self._mark)
        parts = (self._head, messages, system, self._ceiling_field, str(ceiling), self._tail)
        return "".join(parts).encode()

    def compose(
        self, text: str, attached: Sequence[tuple[Attachment, str]]
    ) -> list[Mapping[str, Any]]:
        """Return the attachments and then the text, in which order Claude reads them best.

        https://platform.claude.com/docs/en/build-with-claude/vision
        """
        return [*(_block(*one) for one in attached), {"type": "text", "text": text}]

    def _marked(self, text: str) -> str:
        if not self._mark:
            return text
        return f'[{{"type":"text","text":{text},"cache_control":{self._mark}}}]'

    def _read(self, body: bytes) -> Completion:
        """Return what the body of a reply with status 200 is."""
        return parse_message(body, self._fields.tool)

    def _asking_for(self, llm: Llm, schema: Schema | None) -> FieldsRequest:
        """Return what a request says of the declared fields, and of the answer as a whole."""
        return _FieldsRequest(llm, schema)

    def _parameters(self, llm: Llm) -> dict[str, Any]:
        """Return what follows messages and ceiling in a request, apart from the fields."""
        thinking = (llm.anthropic or AnthropicSettings()).thinking
        declared = {
            "temperature": llm.temperature,
            "top_p": llm.top_p,
            "thinking": thinking and {"type": thinking},
        }
        return {name: value for name, value in declared.items() if value is not None}


def _block(attachment: Attachment, data: str) -> Mapping[str, Any]:
    """Return the block of an image or a document; Anthropic fetches what has a URL."""
    if attachment.url is not None:
        source = {"type": "url", "url": attachment.url}
    else:
        source = {"type": "base64", "media_type": attachment.media_type or "", "data": data}
    return {"type": attachment.kind, "source": source}


class _FieldsRequest(FieldsRequest):
    """What a request says of the declared fields, in Anthropic's words."""

    def __init__(self, llm: Llm, schema: Schema | None) -> None:
        capabilities = capabilities_of(llm)
        super().__init__(schema, capabilities)
        effort = (llm.anthropic or AnthropicSettings()).effort
        output: dict[str, Any] = {} if effort is None else {"effort": effort}
        self.parameters = {}
        if schema:
            self.tokens_bound += _CONSTRAINED_TOKENS
            if self.tool is not None:
                self.parameters = _forced(self.tool, schema)
            elif capabilities.structured == "json_schema":
                output["format"] = {"type": "json_schema", "schema": constraining(schema)}
        if output:
            self.parameters["output_config"] = output


def _forced(tool: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    choice = {"type": "tool", "name": tool, "disable_parallel_tool_use": True}
    offered = {"name": tool, "description": "Gives the answer.", "input_schema": schema}
    return {"tools": [offered], "tool_choice": choice}


def _cache_control(time: str) -> dict[str, str]:
    # 5m is what counts where nothing is said
    return {"type": "ephemeral"} | ({} if time == "5m" else {"ttl": time})
