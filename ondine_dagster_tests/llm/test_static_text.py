"""The text that the messages of all rows begin and end with."""

from __future__ import annotations

import pytest

from ondine_dagster.llm.prompt import PromptRenderer
from ondine_dagster.spec import Prompt


@pytest.mark.parametrize(
    ("template", "ends"),
    [
        ("{{ a }}", ("", "")),
        ("Review: {{ a }}", ("Review: ", "")),
        ("Is {{ a }} like {{ b }}?\n", ("Is ", "?\n")),
        ("no row in it", ("", "")),
        ("From {% if a %}{{ a }}{% else %}nobody{% endif %}.", ("From ", ".")),
        ("{% for word in a %}{{ word }} {% endfor %}", ("", "")),
        ("{# for whom #}Dear {{- a }}{% raw %} {{ b }}{% endraw %}", ("Dear", " {{ b }}")),
    ],
)
def test_static_ends(template: str, ends: tuple[str, str]) -> None:
    renderer = PromptRenderer(Prompt(template=template))
    assert renderer.ends == ends
    rendered = renderer.render({"a": "A", "b": "B"})
    assert isinstance(rendered, str)
