"""What to answer to a key that a declaration does not have: the right name, or "not yet".

Owns the table of settings that are planned but not built: they are refused by name, because a
setting that is accepted and ignored costs its author a run.
"""

from __future__ import annotations

from collections.abc import Collection
from difflib import get_close_matches

NOT_SUPPORTED_YET = frozenset(
    {
        "on_error",
        "llm.extra",
        "llm.keys",
        "output.fields.*.fields",
    }
)

# Not a matter of one dataset, or of all its runs.
_SAID_ELSEWHERE = {
    "encryption": "texts are encrypted where ONDINE_ENCRYPTION_KEY is set",
    "mode": "`ondine-dagster run --replay` and `ondine-dagster verify` choose it for a run",
    "traces": "traces are sent where ONDINE_TRACES is set",
    "tracing": "traces are sent where ONDINE_TRACES is set",
}

# Left out for good: one question, one text answer.
NOT_SUPPORTED = frozenset(
    {
        "llm.audio",
        "llm.modalities",
        "llm.plugins",
        "llm.stream",
        "llm.tool_choice",
        "llm.tools",
        "llm.web_search",
        "output.audio",
        "output.images",
        "prompt.audio",
        "prompt.web_search",
        "web_search",
    }
)

PROVIDERS_NOT_SUPPORTED_YET = frozenset(
    {
        "bedrock",
        "google",
        "gemini",
        "litellm",
        "mistral",
        "vertex",
    }
)

FIELD_TYPES_NOT_SUPPORTED_YET = frozenset({"date", "datetime"})

# Other words for the same thing: those of Ondine, of other tools and of the wire.
_OTHER_NAMES = {
    "model": "llm.name",
    "model_name": "llm.name",
    "models": "llm.openrouter.models",
    "url": "llm.base_url",
    "api_base": "llm.base_url",
    "endpoint": "llm.base_url",
    "system_prompt": "prompt.system",
    "user": "prompt.template",
    "few_shot_examples": "prompt.examples",
    "few_shot": "prompt.examples",
    "shots": "prompt.examples",
    "text": "prompt.template",
    "batch_size": "batching.rows_per_request",
    "max_workers": "limits.concurrency",
    "max_retries": "limits.max_attempts",
    "retries": "limits.max_attempts",
    "timeout": "limits.timeout_seconds",
    "budget": "limits.budget_usd",
    "max_budget": "limits.budget_usd",
    "max_cost": "limits.budget_usd",
    "max_spend": "limits.budget_usd",
    "cost_limit": "limits.budget_usd",
    "amount": "limits.budgets.usd",
    "period": "limits.budgets.per",
    "window": "limits.budgets.per",
    "rate_limit": "limits.requests_per_minute",
    "rate_limit_rpm": "limits.requests_per_minute",
    "max_rpm": "limits.requests_per_minute",
    "rpm": "limits.requests_per_minute",
    "max_tpm": "limits.tokens_per_minute",
    "tpm": "limits.tokens_per_minute",
    "rpd": "limits.requests_per_day",
    "tpd": "limits.tokens_per_day",
    "max_outage": "limits.max_outage_seconds",
    "cron": "schedule",
    "cron_schedule": "schedule",
    "rows_per_partition": "partitions.rows",
    "file": "source.path",
    "connection_string": "source.database",
    "dsn": "source.database",
    "glob": "source.path",
    "id": "source.key",
    "primary_key": "source.key",
    "dtypes": "source.types",
    "values": "enum",
    "choices": "enum",
    "min": "minimum",
    "max": "maximum",
    "rename": "column",
    "regex": "output.pattern",
    "parser": "output.function",
    "schema": "output.fields",
    "output_column": "output.column",
}
_IN_EXAMPLES = {"user": "input", "question": "input", "assistant": "output", "answer": "output"}
_KEYS_OF_PROVIDERS = frozenset({"api_key", "apikey", "key", "token", "api_token", "secret"})


def refusal(path: str) -> str | None:
    """Return what to say about a setting that people know from elsewhere, if this is one.

    `path` is written `limits.budget_usd`, or `output.fields.*.items` for any field.
    """
    if path in NOT_SUPPORTED_YET:
        return "is not supported yet"
    if path in _SAID_ELSEWHERE:
        return f"is no part of a declaration: {_SAID_ELSEWHERE[path]}"
    if path in NOT_SUPPORTED:
        return (
            "is not supported: a row is one question with one text answer, without tools, sound "
            "or web search"
        )
    return None


def advice(section: str, key: str, known: Collection[str], elsewhere: Collection[str]) -> str:
    """Return what to do about the unknown `key` of `section`, as the end of a sentence.

    `known` are the section's own keys, `elsewhere` the dotted paths of all settings.
    """
    if section == "llm" and key.lower() in _KEYS_OF_PROVIDERS:
        return (
            "keys never stand in a declaration: set the environment variable of the provider, or "
            "name another one in llm.key_variable"
        )
    right = _nearest(section, key, known, elsewhere)
    if right:
        return f"did you mean `{right}`?"
    return f"known keys: {', '.join(sorted(known))}"


def _nearest(
    section: str, key: str, known: Collection[str], elsewhere: Collection[str]
) -> str | None:
    if section.startswith("prompt.examples["):
        return _IN_EXAMPLES.get(key.lower())
    other = _OTHER_NAMES.get(key.lower(), "")
    parent, _, name = other.rpartition(".")
    if other and name in known and parent in ("", section):
        return name
    close = get_close_matches(key.lower(), known, n=1, cutoff=0.6)
    if close:
        return close[0]
    if other in elsewhere:
        return other
    # a fallback has the settings of llm once more: who misplaces one means those of llm
    own = [path for path in elsewhere if not path.startswith("llm.fallback.")]
    homes = [path for path in own if path.rpartition(".")[2] == key]
    return homes[0] if len(homes) == 1 else None
