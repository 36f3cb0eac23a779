"""Puts the files of a question into its request, where it is sent and not before.

So no more of them are in memory than there are requests in flight. A file is read again and its
digest compared: what is sent is what the answer will be remembered for.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ondine_dagster.engine.token_weight import BYTES_PER_TOKEN
from ondine_dagster.llm.attachments import Attachment, attachments_in, composed
from ondine_dagster.llm.errors import ErrorClass, ErrorCode, Evidence, Failure
from ondine_dagster.llm.provider import Provider

# the bytes of a digest; None where they are not there any more
Load = Callable[[str], bytes | None]


@dataclass(frozen=True, slots=True)
class Body:
    """A request body; `weight` is its size with attachments counted by their tokens."""

    data: bytes
    weight: int


class Contents:
    """Makes the bodies of requests."""

    def __init__(self, load: Load) -> None:
        self._load = load
        # no text of a row can hold it, so nothing but a place for bytes is ever replaced
        self._nonce = secrets.token_hex(16)

    async def body(self, provider: Provider, messages: str, ceiling: int) -> Body | Failure:
        """Return the request for canonical JSON messages, or why a file cannot be sent."""
        attached = attachments_in(messages)
        if not attached:
            data = provider.body(messages, ceiling)
            return Body(data, len(data))
        written = composed(messages, provider.compose, self._place)
        data = provider.body(written, ceiling)
        tokens = provider.attachment_tokens(messages).likely
        weight = len(data) + BYTES_PER_TOKEN * tokens
        filled = await asyncio.to_thread(self._filled, data, attached)
        return filled if isinstance(filled, Failure) else Body(filled, weight)

    def _place(self, index: int) -> str:
        return f"{self._nonce}-{index}-"

    def _filled(self, body: bytes, attached: Sequence[Attachment]) -> bytes | Failure:
        """Run in a worker thread: files are read and megabytes copied."""
        for index, one in enumerate(attached):
            if one.sha256 is not None:
                data = self._load(one.sha256)
                if data is None:
                    return _gone(one)
                body = body.replace(self._place(index).encode(), base64.b64encode(data))
        return body


def _gone(attachment: Attachment) -> Failure:
    message = (
        f"the {attachment.kind} is not what it was when the prompt was rendered, or not there any "
        "more; nothing was sent. Run the partition again: `prompts` looks at it anew"
    )
    return Failure(ErrorClass.ROW, ErrorCode.ATTACHMENT_CHANGED, message, Evidence.NOT_SENT)
