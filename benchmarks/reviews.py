"""A made-up table of product reviews and the dataset that labels it."""

from __future__ import annotations

import csv
import random
from pathlib import Path
from typing import Any

NAME = "bench"
_WORDS = (
    "the parcel came late but every cup was whole and my daughter loves the blue one although its "
    "handle feels loose after two weeks of daily use so I would buy it again at a lower price"
).split()


def declaration(source: Path, base_url: str, concurrency: int, name: str = NAME) -> dict[str, Any]:
    """Return the declaration of the dataset `name` over the table in `source`."""
    return {
        "name": name,
        "source": {"path": str(source), "key": "id"},
        "partitions": {"rows": 5000},
        "prompt": {
            "system": "You label product reviews.",
            "template": "Product: {{ product }}\nReview: {{ review }}",
        },
        "llm": {
            "provider": "openai_compatible",
            "name": "gpt-4o-mini",
            "base_url": base_url,
            "prices": {"input_per_million_usd": 0.15, "output_per_million_usd": 0.6},
        },
        "output": {
            "fields": {
                "sentiment": {
                    "type": "string",
                    "enum": ["positive", "negative", "neutral"],
                },
                "score": {"type": "integer", "minimum": 0, "maximum": 10},
            }
        },
        "limits": {"concurrency": concurrency},
    }


def write_reviews(path: Path, rows: int, seed: int = 1) -> None:
    """Write a table of so many reviews, others for each seed."""
    chance = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "product", "country", "date", "review"])
        for number in range(rows):
            review = f"{' '.join(chance.choices(_WORDS, k=25))} {number}"
            writer.writerow([f"R{number}", chance.choice(_WORDS), "DE", "2026-01-01", review])
