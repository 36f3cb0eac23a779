"""Addresses of databases: what kind, which file or server, and what of it people may see. Pure.

Owns that a password never reaches a message: refusals never quote an address, `shown` holds neither
user nor password nor options, and `scrubbed` takes both out of a driver's own words.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

DatabaseKind = Literal["duckdb", "sqlite", "postgresql"]

_KINDS: dict[str, DatabaseKind] = {
    "duckdb": "duckdb",
    "sqlite": "sqlite",
    "postgres": "postgresql",
    "postgresql": "postgresql",
}
_EXAMPLES = (
    "duckdb:///data/shop.duckdb, sqlite:///data/shop.sqlite (four slashes before an absolute "
    "path) or postgresql://user:password@host/database"
)
_SHORTEST_SECRET = 4
_SECRET_OPTION = re.compile(r"pass|secret|token|key", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """One database. `path` is the file as declared, empty for a server; `shown` is for people."""

    kind: DatabaseKind
    path: str
    shown: str
    text: str = field(repr=False)
    secrets: tuple[str, ...] = field(repr=False)

    @classmethod
    def parse(cls, text: str) -> DatabaseUrl:
        """Return the parts of an address; raises ValueError, which does not quote it."""
        scheme, found, rest = text.strip().partition("://")
        # SQLAlchemy's URLs may name a driver behind a plus
        kind = _KINDS.get(scheme.lower().partition("+")[0]) if found else None
        if kind is None:
            raise ValueError(
                f"is not the URL of a database that can be used; it must be {_EXAMPLES}"
            )
        return _server(kind, rest) if kind == "postgresql" else _file(kind, rest)

    def scrubbed(self, words: object) -> str:
        """Return what a driver says, without the address and its secrets, in one line."""
        text = " ".join(str(words).split())
        for secret in (self.text, *sorted(self.secrets, key=len, reverse=True)):
            text = text.replace(secret, "***")
        return text


def _file(kind: DatabaseKind, rest: str) -> DatabaseUrl:
    path = unquote(rest.removeprefix("/"))
    if not rest.startswith("/") or not path or path == ":memory:" or "?" in rest:
        raise ValueError(f"names no file of {kind}; it must be as in {_EXAMPLES}")
    return DatabaseUrl(kind, path, f"{kind}:///{path}", f"{kind}://{rest}", ())


def _server(kind: DatabaseKind, rest: str) -> DatabaseUrl:
    text = f"{kind}://{rest}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        port, parts = None, None
    # an @ behind the host, or a second one, is what is left of a password with @, /, ? or # in it
    if parts is None or text.count("@") > 1 or "@" in parts.path + parts.query or parts.fragment:
        raise ValueError(
            "is no URL. Characters of user and password that mean something in a URL have to be "
            "written otherwise: / as %2F, @ as %40, # as %23, ? as %3F, % as %25"
        )
    if not parts.path.strip("/"):
        raise ValueError(f"names no database behind the host; it must be as in {_EXAMPLES}")
    host = parts.hostname or ""
    host = f"[{host}]" if ":" in host else host
    shown = f"{kind}://{host}{f':{port}' if port else ''}{parts.path}"
    return DatabaseUrl(kind, "", shown, text, _secrets(parts))


def _secrets(parts: SplitResult) -> tuple[str, ...]:
    found = {parts.password or "", unquote(parts.password or "")}
    options = parse_qsl(parts.query)
    found.update(value for name, value in options if _SECRET_OPTION.search(name))
    # a shorter one would be taken out of the middle of words, and drivers do not quote it
    return tuple(secret for secret in found if len(secret) >= _SHORTEST_SECRET)
