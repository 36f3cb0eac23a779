"""How chat completions are asked for declared fields: four ways, one for each kind of model.

`json_schema` constrains the answer, `tools` takes the arguments of a function that the model must
call, `json_object` promises JSON and no more, `prompt` promises nothing. The latter two tell the
schema in the system message. Answers are checked by `llm/structured.py` in each case.
"""

from __future__ import annotations

from typing import Any

from ondine_dagster.llm.capabilities import Capabilities
from ondine_dagster.llm.provider import Schema
from ondine_dagster.llm.structured import compact_json

_NAME = "answer"
_END_OF_SYSTEM = '","role":"system"}'
_INSTRUCTIONS = (
    "Answer with one JSON object and nothing else: no Markdown, no text before or after it. "
    "It must be valid against this JSON schema:\n"
)
# at most, for the instructions in a message of their own, or for the description of the tool
_WORDS_TOKENS = len(_INSTRUCTIONS.encode()) + 64


class FieldsRequest:
    """What a request says of the declared fields; nothing where the answer is plain text.

    `parameters` go beside the messages; `tool` is the function whose arguments are the answer, None
    in the other modes; `tokens_bound` is the most prompt tokens that all of it can count.
    """

    def __init__(self, schema: Schema | None, capabilities: Capabilities) -> None:
        mode = capabilities.structured if schema else None
        self.tool = _NAME if mode == "tools" else None
        self.parameters: dict[str, Any] = {}
        self._instructions = ""
        if mode == "json_schema":
            wanted = {"name": _NAME, "strict": capabilities.strict, "schema": schema}
            self.parameters = _response_format("json_schema", json_schema=wanted)
        elif mode == "tools":
            self.parameters = _forced_tool(schema)
        elif mode is not None:
            self._instructions = compact_json(_INSTRUCTIONS + compact_json(schema))[1:-1]
            if mode == "json_object":
                self.parameters = _response_format("json_object")
        # the schema in the provider's own wording, and what else the mode says
        said = 0 if mode in (None, "json_schema") else _WORDS_TOKENS
        self.tokens_bound = said + (2 * len(compact_json(schema).encode()) if schema else 0)

    def messages(self, messages_json: str) -> str:
        """Return canonical JSON of the messages, with the schema where the mode tells it there.

        There is one system message then too: the chat templates of many models take no second.
        """
        if not self._instructions:
            return messages_json
        # text in a JSON string has no bare quotes, so this is where the content of the message ends
        end = messages_json.find(_END_OF_SYSTEM)
        if end < 0:
            return f'[{{"content":"{self._instructions}{_END_OF_SYSTEM},{messages_json[1:]}'
        return f"{messages_json[:end]}\\n\\n{self._instructions}{messages_json[end:]}"


def _response_format(kind: str, **more: Any) -> dict[str, Any]:
    return {"response_format": {"type": kind, **more}}


def _forced_tool(schema: Schema | None) -> dict[str, Any]:
    function = {"name": _NAME, "description": "Gives the answer.", "parameters": schema}
    return {
        "tools": [{"type": "function", "function": function}],
        "tool_choice": {"type": "function", "function": {"name": _NAME}},
    }
