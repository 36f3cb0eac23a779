"""Keys, tokens and passwords: by the form that a vendor gives its own, or by the words before them.

Pure, and linear in the text's length.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ondine_dagster.privacy.surroundings import ENDS, STARTS

_NAMES = (
    r"(?:password|passwort|passwd|pwd|\bpw|passphrase|kennwort|contraseña|mot de passe"
    r"|密码|パスワード"
    r"|secret(?:[_ -]?key)?|(?:api|account|auth|access|private|shared)[_ -]?key"
    r"|(?:access|auth|api|refresh|session|bearer)[_ -]?token)"
)
_LINK = r"(?:\s{0,3}(?::=|=>|[:=：])\s{0,3}|\s+(?:is|ist|lautet|est|es):?\s+)"
_VALUE = r"(?=[^\s\"']{0,200}[\d!@#$%^&*_+=-])[^\s\"',;]{6,200}"
_MIXED = r"(?=[^\s\"']{0,60}\d)(?=[^\s\"']{0,60}[A-Za-z])"
_PRIVATE = r"[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?"
_PRIVATE_END = rf"(?:-----END {_PRIVATE}-----|\Z)"  # or what is left of one
_GITLAB = "glpat gldt glft glrt glcbt glptt glimt glagent gloas glsoat glffct".split()
_VENDORS = (
    "npm_ gsk_ r8_ tvly- lsv2_ dop_v1_ doo_v1_ shpat_ shpss_ nvapi- figd_ lin_api_ sntrys_ "
    "xai- pplx- pul- dapi pmak- atatt3 dckr_pat_"
).split()
_FORMS = re.compile(
    STARTS
    + "(?:"
    + "|".join(
        (
            r"sk-(?=[\w-]{0,60}\d)[\w-]{20,200}",  # OpenAI, Anthropic, OpenRouter
            r"[srp]k_(?:live|test)_\w{16,200}|whsec_[\w+/=]{20,200}",  # Stripe
            r"gh[opsur]_\w{36,255}|github_pat_\w{22,255}",
            rf"(?:{'|'.join(_GITLAB)})-[\w-]{{20,1024}}",
            r"xox[abeoprs]-[\w-]{10,200}|xapp-[\w-]{20,200}",  # Slack
            rf"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{{16}}{ENDS}",  # AWS
            r"AIza[\w-]{35}|GOCSPX-[\w-]{28}|ya29\.[\w-]{20,2000}",  # Google
            rf"(?i:{'|'.join(_VENDORS)})(?=[\w-]{{0,60}}\d)[\w-]{{28,255}}",
            r"hf_[A-Za-z0-9]{30,40}",  # Hugging Face: letters alone
            r"pypi-AgE[\w-]{50,255}",
            r"SG\.[\w-]{16,64}\.[\w-]{16,64}",  # SendGrid
            r"sq0(?:csp|atp|idp)-[\w-]{22,60}",  # Square
            r"eyJ[\w-]{8,4000}\.[\w-]{8,4000}\.[\w-]{8,4000}",  # a JSON web token
        )
    )
    + ")|"
    + "|".join(
        (
            rf"-----BEGIN {_PRIVATE}-----(?:(?!-----).){{0,8000}}{_PRIVATE_END}",
            r"hooks\.slack\.com/services/(?P<hook>[\w/]{20,200})",
            r"discord(?:app)?\.com/api/webhooks/(?P<webhook>\d{15,22}/[\w-]{40,100})",
            r"api\.telegram\.org/bot(?P<bot>\d{6,12}:[\w-]{30,60})",
            # of URLs that are signed, and in logs
            rf"(?i:\b(?:sig|(?:x-amz-)?signature)=)(?P<signature>{_MIXED}[\w.%+/=-]{{20,2000}})",
            rf"(?i:\b(?:csrf|id)?[_-]?token[\"']?{_LINK}[\"']?)(?P<token>{_MIXED}[\w.~+/=-]{{16,4000}})",
            r"(?i:\b(?:bearer|basic)) +(?P<bearer>(?=[\w.~+/-]{0,60}[\d=])[\w.~+/=-]{16,4000})",
            r"://[^\s/:@]{0,100}:(?P<login>[^\s/@]{1,200})@",
            rf"(?i:{_NAMES}[\"']?{_LINK})(?:[\"'](?P<quoted>{_VALUE})|(?P<assigned>{_VALUE}))",
        )
    ),
    re.DOTALL | re.ASCII,
)
# in small letters; without one of them no secret is there, and looking for these is fast
_MARKS = (
    "akia asia abia acca aiza ya29. sg. eyj hooks. bearer basic :// pass pwd secret key token "
    "dapi atatt3 sig= signature= webhooks telegram pw: pw= kennwort contraseña 密码 パスワード"
).split()
_MARKS_WITH_DASHES = (
    *_GITLAB,
    *_VENDORS,
    *"hf_ sk- sk_ pk_ rk_ whsec_ ghp_ gho_ ghs_ ghu_ ghr_ github_pat_ xox xapp- gocspx-".split(),
    *"pypi- sq0 -----begin".split(),
)
# what is to be filled in; and a name or a call in a program: the value itself is not there
_TEMPLATE = re.compile(r"[A-Z_]+|[$<{%].*")
_PROGRAM = re.compile(r"[A-Za-z_.]*[a-z][\w.]*[(\[].*|[a-z]+_[a-z_]+|[\w.]+\.\w+")

# `the password is case-sensitive`
_HAS_SIGN, _WORDS = re.compile("[=:：]"), re.compile("[A-Za-z]+(?:-[A-Za-z]+)+")


def secrets(text: str) -> Iterator[tuple[int, int]]:
    """Yield where secrets begin and end."""
    lowered = text.lower()
    if not _has(lowered, _MARKS) and not (
        ("-" in text or "_" in text) and _has(lowered, _MARKS_WITH_DASHES)
    ):
        return
    for one in _FORMS.finditer(text):
        group = one.lastgroup or 0
        start, end = one.span(group)
        if group in ("quoted", "assigned", "token") and _TEMPLATE.fullmatch(one[group]):
            continue
        if group in ("assigned", "token"):
            said = text[one.start() : start]
            if "=" in said and _PROGRAM.fullmatch(one[group]):
                continue
            if not _HAS_SIGN.search(said) and _WORDS.fullmatch(one[group]):
                continue
            end = start + len(one[group].rstrip(".)"))  # the end of the sentence is no part of it
        yield start, end


def _has(text: str, marks: Iterable[str]) -> bool:
    for mark in marks:  # noqa: SIM110  `any` of a generator takes three times as long
        if mark in text:
            return True
    return False
