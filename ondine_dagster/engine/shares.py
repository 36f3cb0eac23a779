"""Divides what one request used among the questions that it carried, to the last picodollar. Pure.

A question bears what it would have borne alone: in proportion to the size of its own messages.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

from ondine_dagster.llm.provider import Usage


def shares(total: int, weights: Sequence[int]) -> list[int]:
    """Return whole parts of `total` in proportion to `weights` (positive), by largest remainder.

    They add up to `total` exactly. Among equal remainders the first have one more.
    """
    if len(weights) == 1:
        return [total]
    whole = sum(weights)
    parts = [total * weight // whole for weight in weights]
    remainders = [total * weight % whole for weight in weights]
    by_remainder = sorted(range(len(weights)), key=lambda index: -remainders[index])
    for index in by_remainder[: total - sum(parts)]:
        parts[index] += 1
    return parts


def usage_shares(usage: Usage, weights: Sequence[int]) -> list[Usage]:
    """Return the parts of `usage`; what is unknown stays unknown."""
    if len(weights) == 1:
        return [usage]
    columns = [
        [None] * len(weights)
        if (told := getattr(usage, field.name)) is None
        else shares(told, weights)
        for field in fields(Usage)
    ]
    return [Usage(*counts) for counts in zip(*columns, strict=True)]
