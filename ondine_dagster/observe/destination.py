"""Where traces go, as the environment says: Langfuse, or any server that takes OTLP over HTTP.

Owns what the variables mean and what is refused; nothing here connects. Names of variables follow
https://langfuse.com/docs/observability/sdk/overview and
https://opentelemetry.io/docs/specs/otel/protocol/exporter/.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from ondine_dagster.errors import OndineError
from ondine_dagster.settings import TRACES, Settings
from ondine_dagster.spec.urls import is_loopback

SAMPLE = "ONDINE_TRACES_SAMPLE_PERCENT"
TEXTS, LINK = "ONDINE_TRACES_TEXTS", "ONDINE_TRACES_LINK"
PUBLIC_KEY, SECRET_KEY = "LANGFUSE_PUBLIC_KEY", "LANGFUSE_SECRET_KEY"
BASE_URL, PROJECT_ID = "LANGFUSE_BASE_URL", "LANGFUSE_PROJECT_ID"
ENVIRONMENT = "LANGFUSE_TRACING_ENVIRONMENT"
ENDPOINT, TRACES_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
HEADERS, TRACES_HEADERS = "OTEL_EXPORTER_OTLP_HEADERS", "OTEL_EXPORTER_OTLP_TRACES_HEADERS"
PROTOCOL, SERVICE_NAME = "OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_SERVICE_NAME"

_CLOUD = "https://cloud.langfuse.com"
_HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
Kind = Literal["langfuse", "otlp"]


@dataclass(frozen=True, slots=True)
class Destination:
    """A trace host. `headers` are secret. `sample_percent` is the share of rows without an error.

    `texts`: prompts and answers go along, scrubbed. `link` has `{trace_id}` where the id of a trace
    goes, None where no page of a trace is known.
    """

    kind: Kind
    url: str
    headers: Mapping[str, SecretStr] = field(repr=False)
    sample_percent: float = 100.0
    texts: bool = True
    link: str | None = None
    environment: str | None = None
    service_name: str = "ondine_dagster"

    def link_to(self, trace_id: str) -> str | None:
        """Return the address of a trace's page (id in hex), None where it is not known."""
        return None if self.link is None else self.link.replace("{trace_id}", trace_id)

    @property
    def plain_text(self) -> bool:
        """Return whether keys and texts travel unencrypted to another machine."""
        parts = urlsplit(self.url)
        return parts.scheme == "http" and not is_loopback(parts.hostname or "")


def destination_of(settings: Settings) -> Destination | None:
    """Return where traces go; None where nobody asked for them.

    Raises OndineError where they were asked for and cannot be sent: a key or an address is missing
    or malformed. It shows no value that may be secret.
    """
    kind = settings.variable(TRACES)
    if kind is None or kind == "off":
        return None
    if kind not in ("langfuse", "otlp"):
        raise OndineError(f"{TRACES} is {kind!r}. It can be langfuse, otlp or off.")
    return _langfuse(settings) if kind == "langfuse" else _otlp(settings)


def _langfuse(settings: Settings) -> Destination:
    missing = [one for one in (PUBLIC_KEY, SECRET_KEY) if settings.variable(one) is None]
    if missing:
        raise OndineError(
            f"{TRACES} is langfuse, and {' and '.join(missing)} must be set. Copy the keys "
            f"from the settings of your Langfuse project, or unset {TRACES}."
        )
    pair = f"{settings.variable(PUBLIC_KEY)}:{settings.variable(SECRET_KEY)}"
    base = _url(settings.variable(BASE_URL) or _CLOUD, BASE_URL)
    project = settings.variable(PROJECT_ID)
    page = f"{base}/project/{project}/traces/{{trace_id}}" if project else None
    basic = base64.b64encode(pair.encode()).decode()
    return Destination(
        kind="langfuse",
        url=f"{base}/api/public/otel/v1/traces",
        headers={
            "authorization": SecretStr(f"Basic {basic}"),
            "x-langfuse-ingestion-version": SecretStr("4"),
        },
        sample_percent=_sample(settings),
        texts=_texts(settings),
        link=_link(settings) or page,
        environment=settings.variable(ENVIRONMENT),
    )


def _otlp(settings: Settings) -> Destination:
    whole, base = settings.variable(TRACES_ENDPOINT), settings.variable(ENDPOINT)
    if whole is not None:
        url = _url(whole, TRACES_ENDPOINT)
    elif base is not None:
        url = f"{_url(base, ENDPOINT)}/v1/traces"
    else:
        raise OndineError(
            f"{TRACES} is otlp, and {ENDPOINT} is not set. Set it to the address of your "
            f"collector, such as http://localhost:4318, or unset {TRACES}."
        )
    protocol = settings.variable(PROTOCOL)
    if protocol not in (None, "http/protobuf"):
        raise OndineError(
            f"{PROTOCOL} is {protocol}, and traces are sent as http/protobuf only. Unset it, and "
            f"let {ENDPOINT} name the HTTP port of your collector (4318, as a rule)."
        )
    name = TRACES_HEADERS if settings.variable(TRACES_HEADERS) else HEADERS
    return Destination(
        kind="otlp",
        url=url,
        headers=_headers(settings.variable(name) or "", name),
        sample_percent=_sample(settings),
        texts=_texts(settings),
        link=_link(settings),
        service_name=settings.variable(SERVICE_NAME) or "ondine_dagster",
    )


def _url(value: str, variable: str) -> str:
    """Return the URL without trailing slashes. A refusal does not show it: it may hold secrets."""
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        good = False
    if not good or not value.isprintable() or " " in value:
        raise OndineError(f"{variable} is no URL such as https://traces.example.com.")
    if parts.username is not None or parts.query or parts.fragment:
        raise OndineError(
            f"{variable} holds a user name, a password, a query or a fragment. Remove it; secrets "
            f"go into {HEADERS} or into the keys of Langfuse."
        )
    return value.rstrip("/")


def _headers(text: str, variable: str) -> dict[str, SecretStr]:
    """Return headers written as `name=value,name=value`, percent-encoded."""
    found: dict[str, SecretStr] = {}
    for place, pair in enumerate(filter(None, map(str.strip, text.split(","))), 1):
        name, separator, value = (part.strip() for part in pair.partition("="))
        decoded = unquote(value)
        sendable = decoded.isascii() and decoded.isprintable()
        if not separator or not _HEADER_NAME.fullmatch(name) or not sendable:
            raise OndineError(
                f"Header {place} in {variable} cannot be read. Write name=value,name=value, with "
                "values percent-encoded where they hold commas."
            )
        found[name.lower()] = SecretStr(decoded)
    return found


def _sample(settings: Settings) -> float:
    text = settings.variable(SAMPLE)
    if text is None:
        return 100.0
    try:
        percent = float(text)
    except ValueError:
        percent = math.nan
    if not 0 <= percent <= 100:
        raise OndineError(
            f"{SAMPLE} is {text!r}. It is the share of rows without an error that are traced, from "
            "0 (errors only) to 100 (all)."
        )
    return percent


def _texts(settings: Settings) -> bool:
    text = settings.variable(TEXTS) or "on"
    if text not in ("on", "off"):
        raise OndineError(f"{TEXTS} is {text!r}. It can be on or off.")
    return text == "on"


def _link(settings: Settings) -> str | None:
    link = settings.variable(LINK)
    if link is not None and ("{trace_id}" not in link or not link.startswith(("http:", "https:"))):
        raise OndineError(
            f"{LINK} is no address with {{trace_id}} in it, such as "
            "http://localhost:16686/trace/{trace_id}."
        )
    return link
