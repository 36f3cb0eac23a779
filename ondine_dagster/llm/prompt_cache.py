"""What providers keep of prompts that begin alike: from how many tokens on, and where it is marked.

Pure. Below its least size nothing is cached, and no provider says so: each request pays in full.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ondine_dagster.llm.price_table import provider_at
from ondine_dagster.spec import Llm

_END_OF_MESSAGE = re.compile(r',"role":"(?:system|user|assistant)"\},?')
_START_OF_MESSAGE = '{"content":'


@runtime_checkable
class MarksCache(Protocol):
    """A provider that has to be told what to keep.

    `static_messages` is how many messages at the start are the same for all rows: the prompt says
    so, see `PromptRenderer`.
    """

    static_messages: int


@dataclass(frozen=True, slots=True)
class CacheMinimum:
    """The fewest tokens that a model's cache keeps.

    `whole_prefix`: it takes what requests begin with to the byte; else it ends with a message.
    `url` is the page that says so.
    """

    tokens: int
    whole_prefix: bool
    url: str


_CLAUDE = "https://platform.claude.com/docs/en/build-with-claude/prompt-caching"
_OPENAI = "https://platform.openai.com/docs/guides/prompt-caching"
_AZURE = "https://learn.microsoft.com/en-us/azure/foundry/openai/how-to/prompt-caching"
_GROQ = "https://console.groq.com/docs/prompt-caching"


def _claude(tokens: int) -> CacheMinimum:
    return CacheMinimum(tokens, whole_prefix=False, url=_CLAUDE)


# Of these models of OpenAI nothing is kept.
_OLD_GPT = r"gpt-3.*|gpt-4|gpt-4-.*|gpt-4o-2024-05-13|o1-preview.*"
_Models = Sequence[tuple[str, CacheMinimum | None]]
_CLAUDES: _Models = (
    (r"claude-(opus-5|fable|mythos).*", _claude(512)),
    (r"claude-opus-4[-.]7.*", _claude(2048)),
    (r"claude-(opus-4[-.][56]|haiku-4[-.]5).*", _claude(4096)),
    (r"claude-(3[-.]5-haiku|3-haiku|haiku-3).*", _claude(2048)),
    (r"claude-.*", _claude(1024)),
)
_GPTS: _Models = (
    (_OLD_GPT, None),
    (r"(gpt-|o\d|chatgpt-).*", CacheMinimum(1024, whole_prefix=True, url=_OPENAI)),
)
_BY_PROVIDER: Mapping[str, _Models] = {
    "anthropic": _CLAUDES,
    "openai": _GPTS,
    "azure": ((_OLD_GPT, None), (".*", CacheMinimum(1024, whole_prefix=True, url=_AZURE))),
    # 128 to 1,024 tokens, depending on the model
    "groq": (
        (
            r"openai/gpt-oss-.*|moonshotai/kimi-k2.*",
            CacheMinimum(128, whole_prefix=True, url=_GROQ),
        ),
    ),
    "openrouter": (
        *((f"anthropic/(?:{name})", found) for name, found in _CLAUDES),
        *((f"openai/(?:{name})", found) for name, found in _GPTS),
    ),
}


def cache_minimum(llm: Llm) -> CacheMinimum | None:
    """Return the least size of what is cached; None where nothing is, or nobody knows."""
    if not _wanted(llm):
        return None
    known = llm.provider if llm.provider in _BY_PROVIDER else provider_at(llm.endpoint)
    asked = llm.known_as.lower()
    models = _BY_PROVIDER.get(known or "", ())
    return next((found for name, found in models if re.fullmatch(name, asked)), None)


def _wanted(llm: Llm) -> bool:
    """Return whether the declaration leaves the cache on; others than Claude need no word of it."""
    if llm.provider == "anthropic":
        return llm.anthropic is None or llm.anthropic.cache != "none"
    if llm.provider == "openrouter" and llm.known_as.lower().startswith("anthropic/"):
        return llm.openrouter is not None and llm.openrouter.prompt_cache is not None
    return True


def marked(messages_json: str, count: int, control: str) -> str:
    """Return messages with a mark at the end of the first `count`; `control` is JSON.

    The ends of messages are found in the text: inside JSON strings their quotes are escaped.
    """
    begin = 1
    for found in _END_OF_MESSAGE.finditer(messages_json):
        count -= 1
        if count == 0:
            start, end = begin + len(_START_OF_MESSAGE), found.start()
            part = (
                f'[{{"cache_control":{control},"text":{messages_json[start:end]},"type":"text"}}]'
            )
            return f"{messages_json[:start]}{part}{messages_json[end:]}"
        begin = found.end()
    return messages_json
