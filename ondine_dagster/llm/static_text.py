"""What a template renders to for every row alike: its text before the first expression and after
the last one. Pure."""

from __future__ import annotations

from jinja2 import nodes


def static_ends(template: nodes.Template) -> tuple[str, str]:
    """Return what every text of a parsed template begins with, and what it ends with.

    Where nothing depends on the row, both are empty: such a text is one question, not many.
    """
    parts: list[nodes.Node] = []
    for node in template.body:
        parts += node.nodes if isinstance(node, nodes.Output) else [node]
    varying = [at for at, part in enumerate(parts) if not isinstance(part, nodes.TemplateData)]
    if not varying:
        return "", ""
    texts = [part.data if isinstance(part, nodes.TemplateData) else "" for part in parts]
    return "".join(texts[: varying[0]]), "".join(texts[varying[-1] + 1 :])
