"""The exact requests of every provider, as files: `llm/golden/<name>.json`.

`python -m ondine_dagster_tests.llm.contract.golden` writes them again; look at the difference.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from ondine_dagster.llm.attachments import Attachment, composed
from ondine_dagster.llm.prompt import messages_json
from ondine_dagster.llm.provider import Provider
from ondine_dagster.llm.registry import build_provider
from ondine_dagster.llm.structured import compact_json, wire_schema
from ondine_dagster.spec import Llm, Output
from ondine_dagster.spec.providers import PROVIDERS
from ondine_dagster_tests.llm.contract.providers import PRICES, ROWS

FOLDER = Path(__file__).parent.parent / "golden"
FIELDS = {
    "label": {"type": "string", "enum": ["positive", "négatif"], "description": 'How it "feels"'},
    "stars": {"type": "integer", "minimum": 1, "maximum": 5, "required": False},
}
TEXT = messages_json('Say "yes".', 'Zeile 1\nZeile 2\t\\ „ж“ 😀 \x00 {"role":"user"}')
ASKED = messages_json("You label reviews.", "Broken on arrival.")


def cases() -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield the name and the `llm` section of every file: all providers with a wire."""
    rows = {row.provider: row for row in ROWS}
    for provider, entry in PROVIDERS.items():
        if not entry.in_process:
            llm = {"provider": provider, "name": "some/model", "prices": PRICES}
            if entry.base_url is None:
                llm["base_url"] = "https://llm.example.com/v1"
            yield provider, {**llm, **(rows[provider].llm if provider in rows else {})}


def document(llm: Mapping[str, Any]) -> str:
    """Return the file: where the requests go, with which headers, and their bytes."""
    fields = Output.model_validate({"fields": FIELDS}).fields
    plain = build_provider(Llm.model_validate(llm), {})
    sampling = {"temperature": 0, "top_p": 0.9, "max_tokens": 64}
    full = build_provider(Llm.model_validate({**llm, **sampling}), wire_schema(fields))
    found = {
        "url": plain.url,
        "headers": plain.headers(SecretStr("KEY")),
        "without a key": plain.headers(None),
        "text": json.loads(plain.body(TEXT, plain.ceiling)),
        "fields": json.loads(full.body(ASKED, full.ceiling)),
        **{kind: _user_message(plain, one) for kind, one in _attachments(llm["provider"])},
    }
    return json.dumps(found, ensure_ascii=False, indent=2) + "\n"


def _attachments(provider: str) -> Iterator[tuple[str, Attachment]]:
    """Yield what this provider takes beside text, from us and by address."""
    entry, url = PROVIDERS[provider], "https://example.com/1"
    image = Attachment("image", sha256="00", media_type="image/png", width=1, height=1)
    document = Attachment("document", sha256="00", media_type="application/pdf", size=1)
    taken = {
        "image": (entry.images, image),
        "image by URL": (entry.images and entry.image_urls, Attachment("image", url=url)),
        "document": (entry.documents, document),
        "document by URL": (entry.documents and entry.document_urls, Attachment("document", url)),
    }
    return ((kind, one) for kind, (takes, one) in taken.items() if takes)


def _user_message(provider: Provider, attachment: Attachment) -> Any:
    """Return the message of a request that holds an attachment."""
    asked = [{"attachments": [attachment.to_json()], "content": "What is it?", "role": "user"}]
    messages = composed(compact_json(asked), provider.compose, lambda _: "BASE64")
    return json.loads(provider.body(messages, 64))["messages"][-1]


if __name__ == "__main__":
    for name, declared in cases():
        (FOLDER / f"{name}.json").write_text(document(declared), encoding="utf-8")
