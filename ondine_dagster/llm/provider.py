"""What a provider is to the engine: pure functions from a question to bytes and back.

Owns the shared shapes: `Completion`, `Usage`, the `Provider` protocol. A provider is one file that
implements the protocol; no HTTP library's type appears here or above.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol, runtime_checkable

from pydantic import SecretStr

from ondine_dagster.llm.attachments import Attachment
from ondine_dagster.llm.errors import ErrorClass, ErrorCode, Failure
from ondine_dagster.llm.image_tokens import AttachmentTokens
from ondine_dagster.llm.prices import Cost

Schema = Mapping[str, Any]  # the JSON schema that an answer must fit

# The header in which a provider names a request, so that it can be looked up (OpenRouter)
GENERATION_ID = "x-generation-id"


class Verdict(StrEnum):
    """What a received body is, as the ledger keeps it."""

    OK = "ok"
    TRUNCATED = "truncated"
    REFUSED = "refused"
    INVALID = "invalid"
    FAILED = "failed"  # a final failure that cost nothing, remembered like an answer


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens of one request as the provider counted them; None is unknown, not zero.

    `cached_tokens` (read from the provider's cache) and `cache_write_tokens` are subsets of
    `prompt_tokens`; `reasoning_tokens` of `completion_tokens`.
    """

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    reasoning_tokens: int | None = None
    cache_write_tokens: int | None = None

    @property
    def complete(self) -> bool:
        """Return whether a cost can be computed from it."""
        return self.prompt_tokens is not None and self.completion_tokens is not None


NO_USAGE = Usage()


@dataclass(frozen=True, slots=True)
class Completion:
    """A body that was received, and paid: usable or not.

    `text` is the answer where there is one, else what came instead (partial text, refusal, raw
    body). `code` is None for a usable answer. `flags` names oddities that did not stop us.
    `service_tier` is how it was served, where the provider says so.
    `provider_served` is who really answered, where the provider only passes requests on.
    `cost_reported` is what the provider says it billed, `upstream_cost` what the one behind it did
    (picodollars); `is_byok`: there with the user's own key.
    """

    verdict: Verdict
    text: str
    code: ErrorCode | None = None
    finish_reason: str | None = None
    usage: Usage = NO_USAGE
    model_served: str | None = None
    provider_served: str | None = None
    service_tier: str | None = None
    remote_id: str | None = None
    cost_reported: int | None = None
    upstream_cost: int | None = None
    is_byok: bool | None = None
    flags: tuple[str, ...] = ()


_CLASS_OF_VERDICT = {
    Verdict.TRUNCATED: ErrorClass.ROW,
    Verdict.REFUSED: ErrorClass.ROW,
    Verdict.FAILED: ErrorClass.ROW,
    Verdict.INVALID: ErrorClass.ROW_RETRYABLE,
}


def error_class_of(verdict: Verdict) -> ErrorClass | None:
    """Return the class of a row whose answer has this verdict; None for a usable answer."""
    return _CLASS_OF_VERDICT.get(verdict)


class Provider(Protocol):
    """One model behind one endpoint: everything the engine needs to know of it."""

    @property
    def name(self) -> str:
        """Return the provider's name as declared."""

    @property
    def model(self) -> str:
        """Return the model as it is requested on the wire."""

    @property
    def identity(self) -> str:
        """Return the identity of the model: part of every answer key."""

    @property
    def base_url(self) -> str:
        """Return the address without a trailing slash."""

    @property
    def url(self) -> str:
        """Return where completions are posted."""

    @property
    def price_version(self) -> str:
        """Return a short name of the price source and its content."""

    @property
    def ceiling(self) -> int:
        """Return the most completion tokens that a request may bill as it is asked first."""

    @property
    def raised_ceiling(self) -> int | None:
        """Return the ceiling under which an answer that was cut off is asked for once more."""

    def headers(self, key: SecretStr | None) -> dict[str, str]:
        """Return the request headers."""

    def body(self, messages_json: str, ceiling: int) -> bytes:
        """Return the request body for canonical JSON messages."""

    def compose(
        self, text: str, attached: Sequence[tuple[Attachment, str]]
    ) -> list[Mapping[str, Any]]:
        """Return the content of a message with attachments, each with its bytes in base64."""

    def attachment_tokens(self, messages_json: str) -> AttachmentTokens:
        """Return the prompt tokens of all attachments of a request."""

    def prompt_tokens_bound(self, messages_json: str) -> int:
        """Return an upper bound of the prompt tokens of a request, attachments included."""

    def worst_case(self, prompt_tokens: int, ceiling: int) -> int:
        """Return the picodollars that a request within these bounds can cost at most."""

    def cost(self, completion: Completion) -> Cost:
        """Return what a received body cost."""

    def parse(self, status: int, headers: Mapping[str, str], body: bytes) -> Completion | Failure:
        """Return what a complete reply is."""


@runtime_checkable
class InProcess(Protocol):
    """A provider that needs no server, because its model runs in this process."""

    def load(self) -> Callable[[bytes], bytes]:
        """Return what makes a reply body of a request body; called when it is first needed.

        One thread runs it and everything that it returns. Either raises OndineError where the
        model cannot be had or cannot be asked this way: the run stops with its message.
        """


def at_once(provider: Provider, declared: int) -> int:
    """Return how many requests `provider` is sent at once: one where it is in this process."""
    return 1 if isinstance(provider, InProcess) else declared
