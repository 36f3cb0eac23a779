"""Makes the request of a pack, and reads what its answer says of each question.

A pack of one is the ordinary request. Several questions go in the messages of a pack, each under a
code of its own, to the same model with the schema of a pack.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ondine_dagster.engine.contents import Body, Contents
from ondine_dagster.engine.job import Job
from ondine_dagster.engine.shares import usage_shares
from ondine_dagster.llm.errors import Failure
from ondine_dagster.llm.pack_size import PackPlan
from ondine_dagster.llm.packing import Packing, new_codes
from ondine_dagster.llm.provider import Completion, Provider, Usage, Verdict

# verdicts of a whole answer in which the answers of single questions may stand
_MAY_HOLD_ANSWERS = (Verdict.OK, Verdict.TRUNCATED)
_EMPTY = "empty"


@dataclass(frozen=True, slots=True)
class Request:
    """A request: its body, its bounds, and how its answer is read.

    `ceiling` is the most completion tokens of all its questions together, `worst` picodollars;
    `weights` divide what it used among them; `codes` are empty for an ordinary request.
    """

    provider: Provider
    messages: str
    body: Body
    ceiling: int
    prompt_tokens: int
    worst: int
    weights: Sequence[int]
    codes: Sequence[str] = ()
    packing: Packing | None = None

    @property
    def tokens(self) -> int:
        """Return the most tokens that it can use."""
        return self.prompt_tokens + self.ceiling

    def read(self, completion: Completion) -> Sequence[Completion | str]:
        """Return what an answer says of each question; why, in a word, where it is asked again."""
        if self.packing is None:
            return [completion]
        if completion.verdict not in _MAY_HOLD_ANSWERS:
            return [str(completion.verdict)] * len(self.codes)
        cut = completion.verdict is Verdict.TRUNCATED
        found = self.packing.split(completion.text, self.codes, cut=cut)
        used = usage_shares(completion.usage, self.weights)
        return [
            found.problems.get(code) or _item(completion, found.answers[code], usage)
            for code, usage in zip(self.codes, used, strict=True)
        ]


class Requests:
    """Makes the requests of one run."""

    def __init__(
        self, provider: Provider, contents: Contents, packs: PackPlan | None = None
    ) -> None:
        """Without `packs` every question goes alone."""
        self._provider = provider
        self._contents = contents
        self._packs = packs

    async def of(self, jobs: Sequence[Job], ceiling: int) -> Request | Failure:
        """Return the request for these questions, `ceiling` for each; or why there is none."""
        if len(jobs) > 1:
            return await self._packed(jobs, ceiling)
        messages = jobs[0].question.messages
        return await self._made(self._provider, messages, ceiling, [1])

    async def _packed(self, jobs: Sequence[Job], each: int) -> Request | Failure:
        packs = self._packs
        assert packs is not None, "several questions in one request, and no format for it"
        codes = new_codes(len(jobs))
        texts = (job.text for job in jobs)
        messages = packs.packing.compose(jobs[0].prefix, list(zip(codes, texts, strict=True)))
        weights = [max(1, len(job.question.messages)) for job in jobs]
        ceiling = packs.ceiling(len(jobs), each)
        made = await self._made(packs.provider, messages, ceiling, weights)
        if isinstance(made, Failure):
            return made
        return replace(made, codes=codes, packing=packs.packing)

    async def _made(
        self, provider: Provider, messages: str, ceiling: int, weights: Sequence[int]
    ) -> Request | Failure:
        body = await self._contents.body(provider, messages, ceiling)
        if isinstance(body, Failure):
            return body
        bound = provider.prompt_tokens_bound(messages)
        worst = provider.worst_case(bound, ceiling)
        return Request(provider, messages, body, ceiling, bound, worst, weights)


def _item(completion: Completion, text: str, usage: Usage) -> Completion | str:
    """Return what a request for one question would have brought."""
    if not text.strip():
        return _EMPTY
    finish = "stop" if completion.verdict is Verdict.TRUNCATED else completion.finish_reason
    return replace(
        completion,
        verdict=Verdict.OK,
        text=text,
        code=None,
        finish_reason=finish,
        usage=usage,
    )
