"""The text that the messages of all rows have in common: at their ends, and between columns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ondine_dagster.llm.prompt import PromptRenderer
from ondine_dagster.llm.static_text import StaticText
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
    assert (renderer.static_text.head, renderer.static_text.tail) == ends
    rendered = renderer.render({"a": "A", "b": "B"})
    assert isinstance(rendered, str)


def static(template: str, style: str | None = None) -> StaticText:
    prompt = Prompt.model_validate({"template": template, "style": style})
    return PromptRenderer(prompt).static_text


@pytest.mark.parametrize(
    ("template", "columns", "between"),
    [
        ("{{ a }} or {{ b }}", ("a", "b"), (" or ",)),
        ("plain: Is {a} like {b c}? {{Yes}} {{{d}}}", ("a", "b c", "d"), (" like ", "? {Yes} {")),
        ('{{ row["a b"] }}, {{ row.c }}: {{ d }}.', ("a b", "c", "d"), (", ", ": ")),
        ("{{ a }} {# then #}- {% raw %}{{ b }}{% endraw %} {{ c }}", ("a", "c"), (" - {{ b }} ",)),
    ],
)
def test_columns_by_themselves_are_plain(
    template: str, columns: tuple[str, ...], between: tuple[str, ...]
) -> None:
    found = static(template, "plain" if template.startswith("plain") else "jinja")
    assert (found.columns, found.between) == (columns, between)


@pytest.mark.parametrize(
    "template",
    [
        "Review: {{ a }}",  # one is as short as text
        "{{ a }}{{ b }}",
        "{{ a }} or {{ b }} or {{ a }}",
        "{{ a }} or {{ b | upper }}",
        "{{ a }} or {{ b or 'none' }}",
        "{{ a }} or {% if b %}{{ b }}{% endif %}",
        "{{ a }}, {{ b }} in {{ row }}",
        "{{ a }}, {{ b }} of {{ 7 }}",
    ],
)
def test_where_more_than_columns_is_named_the_text_goes_as_a_whole(template: str) -> None:
    found = static(template)
    assert found.columns == found.between == ()
    assert found.cells("x or y") is None


@given(cells=st.lists(st.text("ab, \n:", max_size=5), min_size=3, max_size=3))
def test_cells_come_out_as_they_went_in_or_not_at_all(cells: list[str]) -> None:
    found = StaticText("a: ", ".", ("x", "y", "z"), (", ", "\n: "))
    text = f"a: {cells[0]}, {cells[1]}\n: {cells[2]}."
    assert found.cells(text) in (cells, None)
    if not any(one in cell for cell in cells for one in ", \n:"):
        assert found.cells(text) == cells
