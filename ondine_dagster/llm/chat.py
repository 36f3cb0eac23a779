"""The request of chat completions, which most providers share.

Owns the request JSON. Sends core fields only: `model`, `messages`, declared sampling parameters,
the ceiling, and how declared fields are asked for
(https://platform.openai.com/docs/api-reference/chat/create).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from pydantic import SecretStr

from ondine_dagster.llm.asking_for_fields import FieldsRequest
from ondine_dagster.llm.attachments import Attachment, attachments_in
from ondine_dagster.llm.capabilities import capabilities_of
from ondine_dagster.llm.chat_reply import parse_completion
from ondine_dagster.llm.classify import classify_error, classify_inside
from ondine_dagster.llm.errors import ErrorCode, Failure
from ondine_dagster.llm.image_tokens import AttachmentTokens, attachment_tokens
from ondine_dagster.llm.prices import Cost
from ondine_dagster.llm.pricing import Pricing
from ondine_dagster.llm.provider import Completion, Schema
from ondine_dagster.llm.structured import compact_json
from ondine_dagster.spec import Llm
from ondine_dagster.spec.base import REQUEST

# Chat templates wrap each message and the conversation in tokens that no byte of ours shows.
_TOKENS_PER_MESSAGE = 16
_TOKENS_PER_REQUEST = 64


class ChatCompletions:
    """One model behind `{base_url}/chat/completions`. Providers add what is their own."""

    path: ClassVar[str] = "chat/completions"

    def __init__(self, llm: Llm, schema: Schema | None) -> None:
        self.name = llm.provider_name or llm.provider
        self._declared_headers = llm.headers
        self.model = llm.name
        self.identity = llm.model_identity
        self.base_url = llm.endpoint
        self.url = f"{llm.endpoint}/{self.path}"
        self.ceiling = llm.max_tokens
        self.raised_ceiling = llm.raised_max_tokens
        self.key_variable = llm.key_source
        self._pricing = Pricing(llm)
        self._llm = llm
        self.price_version = self._pricing.version
        self._fields = self._asking_for(llm, schema)
        self._head = f'{{"model":{compact_json(llm.name)},"messages":'
        self._ceiling_field = f',"{llm.ceiling_field}":'
        rest = self._parameters(llm) | self._fields.parameters
        self._tail = "," + compact_json(rest)[1:] if rest else "}"

    def headers(self, key: SecretStr | None) -> dict[str, str]:
        """Return the request headers; `Authorization` only where there is a key."""
        headers = {"content-type": "application/json", "accept": "application/json"}
        if key is not None:
            headers["authorization"] = f"Bearer {key.get_secret_value()}"
        return headers | self._declared_headers

    def body(self, messages_json: str, ceiling: int) -> bytes:
        """Return the request body; the messages are already canonical JSON, so they are spliced."""
        messages = self._messages(messages_json)
        parts = (self._head, messages, self._ceiling_field, str(ceiling), self._tail)
        return "".join(parts).encode()

    def compose(
        self, text: str, attached: Sequence[tuple[Attachment, str]]
    ) -> list[Mapping[str, Any]]:
        """Return the text and then the attachments, as content parts."""
        return [{"type": "text", "text": text}, *(_part(*one) for one in attached)]

    def attachment_tokens(self, messages_json: str) -> AttachmentTokens:
        """Return the prompt tokens of all attachments of a request."""
        return attachment_tokens(self._llm, attachments_in(messages_json))

    def prompt_tokens_bound(self, messages_json: str) -> int:
        """Return the only safe bound: one token per byte, what asks for the fields, the wrapping;
        images by a rule of their own.

        The JSON of the messages is at least as long as their text; 2 or more messages are counted
        by their `"role"` keys, which text inside JSON strings cannot contain unescaped.
        """
        messages = messages_json.count('"role":')
        return (
            len(messages_json.encode())
            + self.attachment_tokens(messages_json).most
            + self._fields.tokens_bound
            + _TOKENS_PER_MESSAGE * messages
            + _TOKENS_PER_REQUEST
        )

    def worst_case(self, prompt_tokens: int, ceiling: int) -> int:
        """Return the picodollars that a request within these bounds can cost at most."""
        return self._pricing.worst_case(prompt_tokens, ceiling)

    def cost(self, completion: Completion) -> Cost:
        """Return what a received body cost."""
        return self._pricing.cost(completion)

    def parse(self, status: int, headers: Mapping[str, str], body: bytes) -> Completion | Failure:
        """Return what a complete reply is: an answer, an unusable body, or a failure."""
        if not 200 <= status < 300:
            return classify_error(status, headers, body, self.key_variable)
        completion = self._read(body)
        if completion.code is ErrorCode.REPLY_HAS_ERROR:
            return classify_inside(body, self.key_variable) or completion
        return completion

    def _messages(self, messages_json: str) -> str:
        """Return the messages as they are sent."""
        return self._fields.messages(messages_json)

    def _read(self, body: bytes) -> Completion:
        """Return what the body of a reply with status 200 is."""
        return parse_completion(body, self._fields.tool)

    def _asking_for(self, llm: Llm, schema: Schema | None) -> FieldsRequest:
        """Return what a request says of the declared fields."""
        return FieldsRequest(schema, capabilities_of(llm))

    def _parameters(self, llm: Llm) -> dict[str, Any]:
        """Return what follows messages and ceiling in a request, apart from the fields."""
        own = llm.own.declared(REQUEST) if llm.own else {}
        return llm.sampling | own


def _part(attachment: Attachment, data: str) -> Mapping[str, Any]:
    """Return the content part of an image or a file; the provider fetches what has a URL."""
    url = attachment.url or f"data:{attachment.media_type};base64,{data}"
    if attachment.kind == "document":
        return {"type": "file", "file": {"filename": "document.pdf", "file_data": url}}
    detail = {} if attachment.detail is None else {"detail": attachment.detail}
    return {"type": "image_url", "image_url": {"url": url, **detail}}
