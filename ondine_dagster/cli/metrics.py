"""`ondine-dagster metrics`: numbers for Prometheus, printed once or served until interrupted."""

from __future__ import annotations

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click

from ondine_dagster.assets.monitoring.run_metrics import FOLDER
from ondine_dagster.errors import OndineError
from ondine_dagster.ledger.database import reader_engine
from ondine_dagster.observe.metrics import CONTENT_TYPE, Page, merged, read_ledger
from ondine_dagster.settings import Settings, load_settings

_PATH = "/metrics"
# a large ledger takes a while to read: reading takes at most this share of the time
_SHARE_OF_TIME, _LEAST_SECONDS = 1 / 20, 1.0


def metrics_command(port: int | None, host: str) -> None:
    """Print the page, or serve it on a port. Raises OndineError where the port is taken."""
    settings = load_settings(Path.cwd())
    if port is None:
        found = page(settings)
        click.echo(found, nl=False)
        if not found:
            click.echo(f"Nothing was run with the data in {settings.data_dir} yet.", err=True)
        return
    with make_server(settings, host, port) as server:
        place = f"http://{server.server_address[0]!s}:{server.server_address[1]}{_PATH}"
        click.echo(f"{place}: numbers of {settings.ledger_path}. Ctrl-C ends it.", err=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            click.echo("", err=True)


def page(settings: Settings) -> str:
    """Return what the ledger knows, and what the last run of each dataset has left."""
    found = Page()
    if settings.ledger_path.exists():
        with reader_engine(settings.ledger_path).connect() as connection:
            read_ledger(connection, found)
    folder = settings.data_dir / FOLDER
    runs = (path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.prom")))
    return merged([found.text(), *runs])


def make_server(settings: Settings, host: str, port: int) -> ThreadingHTTPServer:
    """Return the server, listening. Raises OndineError where it cannot listen."""
    kept = _Kept(settings)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.partition("?")[0] != _PATH:
                self.send_error(404, f"There is only {_PATH}")
                return
            try:
                body = kept.page().encode()
            except Exception as error:  # noqa: BLE001 (Prometheus shows it as a failed scrape)
                self.send_error(500, type(error).__name__)
                return
            self.send_response(200)
            self.send_header("Content-Type", CONTENT_TYPE)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing of each scrape."""

    try:
        return ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise OndineError(f"{host}:{port} cannot be listened on: {error.strerror}.") from error


class _Kept:
    """The page, read anew when it is old enough."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._text = ""
        self._until = 0.0

    def page(self) -> str:
        with self._lock:
            began = time.monotonic()
            if began >= self._until:
                self._text = page(self._settings)
                now = time.monotonic()
                self._until = now + max(_LEAST_SECONDS, (now - began) / _SHARE_OF_TIME)
            return self._text
