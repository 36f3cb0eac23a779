"""Where traces go is read from the environment, and what cannot work is refused with the reason."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from ondine_dagster.errors import OndineError
from ondine_dagster.observe import destination as module
from ondine_dagster.observe.destination import Destination, destination_of
from ondine_dagster.settings import demo_environment, load_settings

LANGFUSE = {
    "ONDINE_TRACES": "langfuse",
    "LANGFUSE_PUBLIC_KEY": "pk-lf-1",
    "LANGFUSE_SECRET_KEY": "sk-lf-secret",
}
OTLP = {"ONDINE_TRACES": "otlp", "OTEL_EXPORTER_OTLP_ENDPOINT": "https://collector.example.com/"}


def read(**environ: str) -> Destination | None:
    return destination_of(load_settings(Path.cwd(), environ))


def wanted(environ: dict[str, str], **more: str) -> Destination:
    found = read(**{**environ, **more})
    assert found is not None
    return found


def test_nobody_asked() -> None:
    assert read() is None
    assert read(ONDINE_TRACES="off", LANGFUSE_PUBLIC_KEY="pk") is None
    assert read(LANGFUSE_PUBLIC_KEY="pk", LANGFUSE_SECRET_KEY="sk") is None


def test_langfuse_in_the_cloud() -> None:
    found = wanted(LANGFUSE)
    assert found.url == "https://cloud.langfuse.com/api/public/otel/v1/traces"
    pair = base64.b64encode(b"pk-lf-1:sk-lf-secret").decode()
    assert found.headers["authorization"].get_secret_value() == f"Basic {pair}"
    assert found.headers["x-langfuse-ingestion-version"].get_secret_value() == "4"
    assert (found.sample_percent, found.texts, found.link_to("ab")) == (100.0, True, None)


def test_a_langfuse_of_ones_own_and_its_page_of_a_trace() -> None:
    found = wanted(
        LANGFUSE,
        LANGFUSE_BASE_URL="http://langfuse.internal:3000/",
        LANGFUSE_PROJECT_ID="p1",
        LANGFUSE_TRACING_ENVIRONMENT="staging",
    )
    assert found.url == "http://langfuse.internal:3000/api/public/otel/v1/traces"
    assert found.link_to("ab") == "http://langfuse.internal:3000/project/p1/traces/ab"
    assert found.environment == "staging"
    assert found.plain_text
    assert not wanted(LANGFUSE, LANGFUSE_BASE_URL="http://localhost:3000").plain_text


def test_a_collector() -> None:
    found = wanted(
        OTLP,
        OTEL_EXPORTER_OTLP_HEADERS="api-key=se%2Ccret, X-Scope=team a",
        OTEL_SERVICE_NAME="labels",
        ONDINE_TRACES_LINK="http://localhost:16686/trace/{trace_id}",
        ONDINE_TRACES_SAMPLE_PERCENT="2.5",
        ONDINE_TRACES_TEXTS="off",
    )
    assert found.url == "https://collector.example.com/v1/traces"
    sent = {name: one.get_secret_value() for name, one in found.headers.items()}
    assert sent == {"api-key": "se,cret", "x-scope": "team a"}
    assert found.link_to("ab") == "http://localhost:16686/trace/ab"
    assert (found.service_name, found.sample_percent, found.texts) == ("labels", 2.5, False)


def test_the_variables_for_traces_win_over_those_for_all_signals() -> None:
    found = wanted(
        OTLP,
        OTEL_EXPORTER_OTLP_TRACES_ENDPOINT="https://traces.example.com/in",
        OTEL_EXPORTER_OTLP_HEADERS="a=1",
        OTEL_EXPORTER_OTLP_TRACES_HEADERS="b=2",
    )
    assert found.url == "https://traces.example.com/in"
    assert list(found.headers) == ["b"]


@pytest.mark.behaviour("E-3b")
@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"ONDINE_TRACES": "langsmith"}, "can be langfuse, otlp or off"),
        ({"ONDINE_TRACES": "langfuse"}, "LANGFUSE_PUBLIC_KEY and LANGFUSE_SECRET_KEY must be set"),
        ({**LANGFUSE, "LANGFUSE_SECRET_KEY": " "}, "LANGFUSE_SECRET_KEY must be set"),
        ({**LANGFUSE, "LANGFUSE_BASE_URL": "langfuse.internal"}, "LANGFUSE_BASE_URL is no URL"),
        ({"ONDINE_TRACES": "otlp"}, "OTEL_EXPORTER_OTLP_ENDPOINT is not set"),
        ({**OTLP, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, "sent as http/protobuf only"),
        ({**OTLP, "OTEL_EXPORTER_OTLP_HEADERS": "a=1,hunter2"}, "Header 2 in OTEL_EXPORTER"),
        ({**OTLP, "OTEL_EXPORTER_OTLP_HEADERS": "a=hunter2%0A"}, "Header 1 in OTEL_EXPORTER"),
        (
            {**OTLP, "OTEL_EXPORTER_OTLP_ENDPOINT": "https://me:hunter2@example.com"},
            "OTEL_EXPORTER_OTLP_ENDPOINT holds a user name",
        ),
        (
            {**OTLP, "OTEL_EXPORTER_OTLP_ENDPOINT": "https://example.com?key=hunter2"},
            "OTEL_EXPORTER_OTLP_ENDPOINT holds a user name, a password, a query",
        ),
        ({**OTLP, "ONDINE_TRACES_SAMPLE_PERCENT": "101"}, "from 0 .errors only. to 100"),
        ({**OTLP, "ONDINE_TRACES_SAMPLE_PERCENT": "nan"}, "from 0 .errors only. to 100"),
        ({**OTLP, "ONDINE_TRACES_TEXTS": "no"}, "can be on or off"),
        ({**OTLP, "ONDINE_TRACES_LINK": "http://x/trace"}, "no address with {trace_id}"),
    ],
)
def test_what_cannot_work_is_refused_before_anything_begins(
    environ: dict[str, str], words: str
) -> None:
    with pytest.raises(OndineError, match=words) as refused:
        read(**environ)
    assert "hunter2" not in str(refused.value)


def test_no_secret_is_shown() -> None:
    shown = repr(wanted(LANGFUSE)) + repr(wanted(OTLP, OTEL_EXPORTER_OTLP_HEADERS="a=hunter2"))
    pair = base64.b64encode(b"pk-lf-1:sk-lf-secret").decode()
    assert all(secret not in shown for secret in ("hunter2", "sk-lf-secret", pair))


def test_the_demo_sends_nothing() -> None:
    assert "ONDINE_TRACES" not in demo_environment(LANGFUSE)


@pytest.mark.behaviour("E-9")
def test_no_provider_knows_of_traces() -> None:
    """One module sends what all providers did: from the ledger, after the fact."""
    package = Path(module.__file__).parents[1]
    users = {
        path.relative_to(package).parts[0]
        for path in package.rglob("*.py")
        if "ondine_dagster.observe" in path.read_text(encoding="utf-8")
    }
    assert users == {"assets", "cli", "observe"}
    (speaker,) = (
        path.name
        for path in package.rglob("*.py")
        if "application/x-protobuf" in path.read_text(encoding="utf-8")
    )
    assert speaker == "otlp.py"
