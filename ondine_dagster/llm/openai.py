"""OpenAI's own API: the chat completions that others imitate, and what only OpenAI has.

https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from pydantic import SecretStr

from ondine_dagster.llm.chat import ChatCompletions
from ondine_dagster.llm.provider import Schema
from ondine_dagster.spec import Llm, OpenAISettings


class OpenAI(ChatCompletions):
    """One model of OpenAI."""

    def __init__(self, llm: Llm, schema: Schema | None) -> None:
        super().__init__(llm, schema)
        own = llm.openai or OpenAISettings()
        named = {"openai-organization": own.organization, "openai-project": own.project}
        self._account = {name: value for name, value in named.items() if value is not None}

    def headers(self, key: SecretStr | None) -> dict[str, str]:
        """Return the request headers; organisation and project only where they are declared."""
        return super().headers(key) | self._account
