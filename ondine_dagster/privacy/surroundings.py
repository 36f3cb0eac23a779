"""What stands around a value: where a word may begin and end, and the words before it. Pure."""

from __future__ import annotations

import re

_BEFORE = 32  # characters that are looked at before a number
# Thai, Lao, Japanese, Chinese and Korean put no space between a value and what stands around it
_UNSPACED = "\u0e00-\u0eff\u1100-\u11ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\uf900-\ufaff"
# a letter, digit or underscore with which a value would be one word; for use within a pattern
WORD = rf"[^\W{_UNSPACED}]"
# also behind a line break or a tab that is written as in JSON and programs
STARTS = rf"(?:(?<!{WORD})|(?<=\\[nrt]))"
ENDS = rf"(?!{WORD})"

OTHER_NUMBER = re.compile(
    r"(?:\b(?:order|invoice|ticket|tracking|serial|model|part|item|article|case|batch|lot|ref(?:erence)?"
    r"|sku|isbn(?:-1[03])?|issn|doi|ean|gtin|upc|imei|bestell(?:ung|nummer)?|rechnung|artikel"
    r"|commande|pedido|id|no|nr)|#|单号|订单|編號|编号|型号|番号)"
    r"[\s.:#：_-]*(?:(?:number|nummer|code|no|nr|id)[\s.:#]*)?(?:(?:is|was|ist)\s+)?$",
    re.IGNORECASE,
)


def after(words: re.Pattern[str], text: str, start: int) -> bool:
    """Return whether these words end right before a place of a text."""
    return words.search(text[max(0, start - _BEFORE) : start]) is not None


def digits_of(text: str) -> str:
    """Return the digits alone, those of all scripts as 0 to 9."""
    digits = "".join(filter(str.isdecimal, text))
    return digits if digits.isascii() else "".join(str(int(one)) for one in digits)
