"""Models of mlx-lm in this process, on Apple silicon: no server, no key, no bill.

Speaks chat completions as a server would, JSON in and JSON out, so that for engine and ledger it is
a provider like any other (https://github.com/ml-explore/mlx-lm).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from typing import Any

from jinja2 import TemplateError

from ondine_dagster.errors import OndineError
from ondine_dagster.llm.chat import ChatCompletions
from ondine_dagster.llm.provider import Schema
from ondine_dagster.llm.structured import compact_json
from ondine_dagster.spec import Llm


class MLX(ChatCompletions):
    """One model that mlx-lm loads, by its folder or its name on Hugging Face."""

    def __init__(self, llm: Llm, schema: Schema | None) -> None:
        if llm.structured not in (None, "prompt"):
            raise OndineError(
                f"llm.structured is {llm.structured}, but nothing constrains an answer of mlx-lm: "
                "leave it out, and the prompt asks for the fields"
            )
        super().__init__(llm, schema)

    def load(self) -> Callable[[bytes], bytes]:
        """Load the weights (the first time, mlx-lm downloads them); return what answers.

        Raises OndineError where mlx-lm cannot load the model, or is not there.
        """
        try:
            return _Model(self.model).answer
        except (ImportError, OSError, ValueError) as error:
            text = f"mlx-lm cannot load llm.name {self.model}: {type(error).__name__}: {error}"
            raise OndineError(text) from error


class _Model:
    """A loaded model. Belongs to one thread."""

    def __init__(self, name: str) -> None:
        mlx_lm = import_module("mlx_lm")
        self._generate = mlx_lm.stream_generate
        self._sampler = import_module("mlx_lm.sample_utils").make_sampler
        self._seed = import_module("mlx.core").random.seed
        self._name = name
        self._model, self._tokenizer = mlx_lm.load(name)

    def answer(self, body: bytes) -> bytes:
        """Return the reply to a request, both in the JSON of chat completions."""
        request = json.loads(body)
        if "seed" in request:
            self._seed(request["seed"] % 2**64)  # it takes no negative one
        ceiling = request.get("max_tokens") or request["max_completion_tokens"]
        # the defaults of mlx-lm where nothing is declared
        sampling = {"temp": "temperature", "top_p": "top_p"}
        declared = {ours: request[wire] for ours, wire in sampling.items() if wire in request}
        pieces = list(
            self._generate(
                self._model,
                self._tokenizer,
                self._prompt(request["messages"]),
                max_tokens=ceiling,
                sampler=self._sampler(**declared),
            )
        )
        return compact_json(self._reply("".join(one.text for one in pieces), pieces[-1])).encode()

    def _prompt(self, messages: list[dict[str, str]]) -> list[int]:
        try:
            tokens: list[int] = self._tokenizer.apply_chat_template(
                messages, add_generation_prompt=True
            )
        except TemplateError as error:
            text = f"the chat template of {self._name} does not take these messages: {error}"
            raise OndineError(text) from error
        return tokens

    def _reply(self, text: str, last: Any) -> dict[str, Any]:
        message = {"role": "assistant", "content": text}
        usage = {
            "prompt_tokens": last.prompt_tokens,
            "completion_tokens": last.generation_tokens,
        }
        choice = {"index": 0, "message": message, "finish_reason": last.finish_reason}
        return {"model": self._name, "choices": [choice], "usage": usage}
