"""The engine as the assets see it: rows in, ended rows out, the loop in a thread of its own.

The caller's thread waits in short steps, so that an interrupt (Dagster's terminate, SIGINT,
SIGTERM) reaches it there and never a row in flight.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from types import MappingProxyType

from pydantic import SecretStr

from ondine_dagster.engine.asking import Asker
from ondine_dagster.engine.budget_queue import BudgetQueue
from ondine_dagster.engine.contents import Contents, Load
from ondine_dagster.engine.credentials import FetchToken, TokenKeeper
from ondine_dagster.engine.daemon_thread import in_daemon_thread
from ondine_dagster.engine.events import Hear
from ondine_dagster.engine.garbage import seldom_collected
from ondine_dagster.engine.in_process import InProcessTransport
from ondine_dagster.engine.keys import KeyRing
from ondine_dagster.engine.ledger_client import LedgerClient
from ondine_dagster.engine.pacing import Pacer
from ondine_dagster.engine.pilot import PilotPlan, PilotVerdict
from ondine_dagster.engine.preflight import Checked, Preflight
from ondine_dagster.engine.progress import Progress
from ondine_dagster.engine.ready import Ready
from ondine_dagster.engine.request import Requests
from ondine_dagster.engine.rows import Chunk, PartitionFeed
from ondine_dagster.engine.runner import Runner
from ondine_dagster.engine.sending import Sender
from ondine_dagster.engine.stop import StopSign
from ondine_dagster.engine.traffic import Traffic
from ondine_dagster.engine.transport import Transport
from ondine_dagster.ledger.key_fingerprints import fingerprinter
from ondine_dagster.ledger.ledger import Ledger
from ondine_dagster.ledger.rates import UNLIMITED, Rates
from ondine_dagster.ledger.records import RequestContext
from ondine_dagster.llm.errors import Failure
from ondine_dagster.llm.pack_size import PackPlan
from ondine_dagster.llm.provider import InProcess, Provider

WINDOW_ROWS = 10_000
_WAIT_SECONDS = 0.2


@dataclass(frozen=True, slots=True)
class EngineLimits:
    """How much may happen at once (`concurrency` requests, `window_rows` rows in memory).

    `rates` are kept together with all processes; `max_outage_seconds` is how long a provider may
    be out before the run stops.
    """

    concurrency: int = 16
    max_attempts: int = 5
    timeout_seconds: float = 120.0
    drain_seconds: float = 20.0
    window_rows: int = WINDOW_ROWS
    max_outage_seconds: float = 600.0
    rates: Rates = UNLIMITED


class Engine:
    """Asks the questions of one run. Use it once."""

    def __init__(
        self,
        ledger: Ledger,
        provider: Provider,
        context: RequestContext,
        limits: EngineLimits,
        keys: Sequence[SecretStr] = (),
        pilot: PilotPlan | None = None,
        preflight: Preflight | None = None,
        fetch_token: FetchToken | None = None,
        load: Load = lambda digest: None,
        secret_headers: Mapping[str, str] = MappingProxyType({}),
        why_again: Callable[[str], str | None] | None = None,
        packs: PackPlan | None = None,
        hear: Hear | None = None,
    ) -> None:
        """`pilot`: which rows are judged before the others are sent; None: none.

        `preflight`: what is looked up before the first question of the run; None: nothing.
        `fetch_token` returns the token of an identity, in the place of keys.
        `load` gives the bytes of the images and documents of questions by their digest.
        `secret_headers` go with every request.
        `why_again` says why an answer is asked for once more with that reason, if it is.
        `packs`: how several questions go in one request; None: each goes alone.
        `hear` is told of every request; None: nobody is.
        """
        self._hear = hear
        self._packs = packs
        self._load = load
        self._why_again = why_again
        self._ledger = ledger
        self._provider = provider
        self._context = context
        self._limits = limits
        self._keys = keys
        self._pilot = pilot
        self._preflight = preflight
        self._fetch_token = fetch_token
        self._secret_headers = secret_headers
        self._out: queue.SimpleQueue[Chunk | None] = queue.SimpleQueue()
        self._runner: Runner | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._error: BaseException | None = None
        self._closing = self._stopping = False
        self.progress = Progress()
        self.stopped: Failure | None = None
        self.pilot: PilotVerdict | None = None  # once the first rows were judged
        self.checked: Checked | None = None  # once something was to be asked

    def run(self, feeds: Iterable[PartitionFeed]) -> Generator[Chunk]:
        """Yield ended rows: in order within a partition, partitions as they come.

        After the last chunk `stopped` says why rows were not attempted, if so. Closing the
        iterator early, or an exception in the caller, stops sending, lets what is in flight end
        (up to `drain_seconds`), and leaves everything that was received in the ledger. Raises
        our own bugs as they were.
        """
        with seldom_collected():
            yield from self._chunks(feeds)
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """Send nothing more, from any thread: the rows that are left end as not attempted."""
        self._stopping = True
        self._tell("stop")

    def _chunks(self, feeds: Iterable[PartitionFeed]) -> Generator[Chunk]:
        thread = threading.Thread(target=self._thread, args=(feeds,), name="engine", daemon=True)
        finished = False
        try:
            thread.start()
            while (chunk := self._next()) is not None:
                yield chunk
                self._tell("consumed", len(chunk.outcomes))
            finished = True
        finally:
            if not finished:
                self._closing = True
                self._tell("interrupt")
            if thread.is_alive():
                thread.join()

    def _next(self) -> Chunk | None:
        while True:
            try:
                return self._out.get(timeout=_WAIT_SECONDS)
            except queue.Empty:
                continue

    def _tell(self, method: str, *args: int) -> None:
        """Call a method of the runner on its loop."""
        if self._loop is None:
            return  # it looks at _closing when it starts
        with suppress(RuntimeError):  # the loop has ended: nobody listens any more
            self._loop.call_soon_threadsafe(getattr(self._runner, method), *args)

    def _thread(self, feeds: Iterable[PartitionFeed]) -> None:
        try:
            with asyncio.Runner(loop_factory=_new_loop) as runner:
                runner.run(self._main(feeds))
        except BaseException as error:  # noqa: BLE001 (the caller's thread raises it)
            self._error = error
        finally:
            self._out.put(None)

    async def _main(self, feeds: Iterable[PartitionFeed]) -> None:
        limits, stop = self._limits, StopSign()
        ring = KeyRing(self._keys, fingerprinter(self._ledger.database))
        transport = self._transport(ring)
        tokens = self._tokens(transport, stop)
        key = self._context.provider_key
        traffic = Traffic(
            self._ledger,
            key,
            concurrency=limits.concurrency,
            max_outage_seconds=limits.max_outage_seconds,
            stop=stop,
            progress=self.progress,
        )
        pacer = Pacer(self._ledger, key, limits.rates, stop, self.progress)
        client = LedgerClient(self._ledger)
        budget = BudgetQueue(self._ledger.reap, stop, self.progress)
        sender = Sender(
            client,
            self._provider,
            transport,
            self._context,
            traffic=traffic,
            pacer=pacer,
            budget=budget,
            stop=stop,
            progress=self.progress,
            packs=self._packs,
            rates=limits.rates,
            hear=self._hear,
        )
        asker = Asker(
            client,
            sender,
            self._provider,
            self._context,
            traffic=traffic,
            pacer=pacer,
            keys=ring,
            requests=Requests(self._provider, Contents(self._load), self._packs),
            budget=budget,
            max_attempts=limits.max_attempts,
            stop=stop,
            progress=self.progress,
            why_again=self._why_again,
        )
        self._runner = Runner(
            self._ledger,
            asker,
            self._out.put,
            ceiling=self._provider.raised_ceiling or self._context.ceiling,
            # twice: while some back off, others use their permits
            workers=2 * limits.concurrency,
            window_rows=limits.window_rows,
            stop=stop,
            progress=self.progress,
            ready=Ready(sender.sizes),
            pilot=self._pilot,
            before_first=lambda: self._prepare(ring, asker, stop, tokens),
        )
        self._loop = asyncio.get_running_loop()
        if self._closing:  # the caller left before there was a loop to tell
            self._runner.interrupt()
        if self._stopping:
            self._runner.stop()
        async with AsyncExitStack() as closing:
            closing.callback(self._note_why, stop)
            for part in (traffic, transport, pacer):  # closed from the last to the first
                closing.push_async_callback(part.aclose)
            if tokens is not None:
                closing.push_async_callback(tokens.aclose)
            await traffic.start()
            await self._runner.run(feeds, limits.drain_seconds)
        # read once: the writer may be paying its debts just now
        if (broken := self._ledger.broken) is not None:  # the last answers are in the spill alone
            raise broken

    def _headers(self, key: SecretStr | None) -> dict[str, str]:
        return {**self._provider.headers(key), **self._secret_headers}

    def _transport(self, ring: KeyRing) -> Transport | InProcessTransport:
        if isinstance(self._provider, InProcess):
            return InProcessTransport(self._provider.load)
        return Transport(
            self._provider.url,
            [self._headers(key.secret) for key in ring.keys],
            [*(key.get_secret_value() for key in self._keys), *self._secret_headers.values()],
            connections=self._limits.concurrency,
            seconds=self._limits.timeout_seconds,
        )

    async def _check(self, ring: KeyRing, asker: Asker, stop: StopSign) -> None:
        if self._preflight is None or stop.is_set():
            return
        looking = in_daemon_thread(self._preflight.look, "preflight")
        stop.when_set(looking.cancel)
        try:
            checked = self.checked = await looking
        except asyncio.CancelledError:
            if stop.is_set():  # a run that is stopped does not wait for who does not answer
                return
            raise
        asker.know_window(checked.context_window)
        if checked.failure is not None:
            stop.set(checked.failure)
            return
        for index, failure in checked.key_failures.items():
            if (said := ring.bench(ring.keys[index], failure)) is not None:
                self.progress.warnings.append(said)
        self.progress.warnings.extend(checked.notes)

    async def _prepare(
        self, ring: KeyRing, asker: Asker, stop: StopSign, tokens: TokenKeeper | None
    ) -> None:
        """Do what has to be done before the first question of the run."""
        await self._check(ring, asker, stop)
        if tokens is not None and not stop.is_set():
            await tokens.start()

    def _tokens(
        self, transport: Transport | InProcessTransport, stop: StopSign
    ) -> TokenKeeper | None:
        """Return what keeps the token of an identity fresh, where there is one."""
        if self._fetch_token is None or not isinstance(transport, Transport):
            return None

        def renew(token: SecretStr) -> None:
            transport.renew(self._headers(token), token.get_secret_value())

        return TokenKeeper(self._fetch_token, renew, stop, self.progress)

    def _note_why(self, stop: StopSign) -> None:
        self.stopped = stop.reason
        if self._runner is not None and self._runner.pilot is not None:
            self.pilot = self._runner.pilot.verdict


def _new_loop() -> asyncio.AbstractEventLoop:
    try:  # comes with Dagster's web server on most platforms; a fifth less CPU per request
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()
