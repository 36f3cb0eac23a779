"""How texts of answers are kept."""

from __future__ import annotations

import json
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.payloads import PLAIN, ZLIB, decode, encode
from ondine_dagster.ledger.sealing import Sealing, Unreadable
from ondine_dagster.settings import EncryptionKeys
from ondine_dagster_tests.ledger.builders import ask_and_answer, key, value

LONG = json.dumps({"summary": "the parcel was late, and the shop did not answer. " * 20})
ID = b"0123456789abcdef"
OPEN = Sealing(EncryptionKeys())
SEALED = Sealing(EncryptionKeys(SecretStr("a key of sixteen")))
_TEXTS = st.text(st.characters(codec="utf-8"), max_size=400)


@pytest.mark.behaviour("A-5")
@settings(max_examples=60)
@given(_TEXTS)
def test_a_text_comes_back_and_never_takes_more_room(text: str) -> None:
    codec, body = encode(text, ID, OPEN)
    assert decode(codec, body, ID, OPEN) == text
    assert len(body) <= len(text.encode())
    codec, sealed = encode(text, ID, SEALED)
    assert decode(codec, sealed, ID, SEALED) == text
    assert len(sealed) == len(body) + 4 + 12 + 1 + 16, "namespace, nonce, codec, tag"


@pytest.mark.behaviour("A-5")
def test_only_what_gets_smaller_is_compressed() -> None:
    assert [encode(text, ID, OPEN)[0] for text in ('{"topic":"delivery"}', LONG)] == [PLAIN, ZLIB]
    assert len(encode(LONG, ID, OPEN)[1]) < len(LONG) / 5
    # any tool can read it: zlib, and no library of ours
    assert zlib.decompress(encode(LONG, ID, OPEN)[1]).decode() == LONG


@pytest.mark.behaviour("A-5")
def test_a_codec_of_the_future_is_named() -> None:
    with pytest.raises(OndineError, match="codec 9"):
        decode(9, b"text", ID, OPEN)


@pytest.mark.parametrize("codec", [PLAIN, ZLIB])
def test_damaged_bytes_are_unreadable(codec: int) -> None:
    with pytest.raises(Unreadable):
        decode(codec, b"\xff\xfe\x00damaged", ID, OPEN)


def test_the_ledger_compresses_and_gives_back(ledger: Ledger) -> None:
    ask_and_answer(ledger, "long", text=LONG)
    assert ledger.look_up([key("long")], 100)[key("long")].text == LONG
    assert value(ledger.database, "SELECT length(body) FROM payloads") < len(LONG) / 5
