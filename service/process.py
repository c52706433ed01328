"""A serving process from its settings to its end.

    run ── embedded Postgres (main thread) ── workers? ── serve ── web application

With one worker the process serves by itself; with several it owns Postgres, the port and the unix socket, and watches
children that share them.
On SIGTERM or SIGINT readiness goes first, accepted requests are answered, then everything stops in reverse order.
"""

import asyncio
import gc
import resource
import signal
import socket
import ssl
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from typing import Final

import uvloop
from aiohttp import web

from service import first_secrets, listening, trust, whereabouts, workers
from service.app import end, make_app
from service.config import Settings
from service.embedded import EmbeddedPostgres, ServerEvent, ServerSettings
from service.errors import NotLetIn, StartError, Unavailable
from service.http.keys import METRICS
from service.http.server import Runner
from service.observe import (
    Metrics,
    close_sentry,
    get_logger,
    install_hooks,
    loop_exception_handler,
    report,
    setup_logging,
    setup_sentry,
)
from service.store import keyring, make_store, store_options
from service.vault import MasterKeys

_log = get_logger("authstore.process")

_SHUTDOWN_S: Final = 30.0
_NOTICE_S: Final = 0.5
"""Between not being ready and not listening: clients with open connections are told with their next answer."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What a serving process is made of. ``server`` only where Postgres is this process's own.

    ``sockets``: listening already, when they are shared with others. ``serves``: called once it listens.
    """

    settings: Settings
    url: str = field(repr=False)
    masters: MasterKeys
    token: str | None = field(repr=False)
    server: EmbeddedPostgres | None = None
    sockets: Sequence[socket.socket] = ()
    serves: Callable[[], None] = lambda: None


def run(settings: Settings, reload: Callable[[], Settings]) -> None:
    """Serves until SIGTERM or SIGINT. Raises StartError, ConfigError, EmbeddedError when it cannot start."""
    prepare_process(settings)
    with ExitStack() as stack:
        stack.callback(close_sentry)
        server = None
        if settings.embedded:
            own = embedded_settings(settings)
            server = EmbeddedPostgres(settings.data_dir, pg_bin=settings.pg_bin, settings=own)
            stack.callback(server.stop)
            url = server.start(_tell)
        else:
            assert settings.database_url is not None  # noqa: S101 - what embedded says
            url = settings.database_url.get_secret_value()
        masters = first_secrets.master_keys(settings, reload, unused=lambda: asyncio.run(keyring.never_set_up(url)))
        parts = Parts(settings, url, masters, first_secrets.first_token(settings), server)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            if settings.workers == 1:
                runner.run(serve(parts))
            else:
                runner.run(_watch_workers(parts, partial(_run_worker, settings, url, reload)))


def embedded_settings(settings: Settings) -> ServerSettings:
    """Those of the embedded Postgres: with connections for every serving process's store."""
    pooled = settings.workers * store_options(settings).connections
    return ServerSettings(max_connections=ServerSettings.connections_for(pooled))


def prepare_process(settings: Settings) -> None:
    """Logs, hooks and error reports, before anything else can fail. No core files: they would hold every key.

    SIGHUP is ignored: a service outlives its terminal, and there is nothing to reload, keys are read again by themselves.
    """
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    setup_logging(settings.log_format, settings.log_level)
    install_hooks()
    setup_sentry(
        None if settings.sentry_dsn is None else settings.sentry_dsn.get_secret_value(), settings.sentry_environment
    )


async def serve(parts: Parts) -> None:
    """One process's service, until it is told to stop. Raises what kept the store from opening, also later on."""
    stop = _stop_event()
    async with AsyncExitStack() as stack:
        store = make_store(parts.settings, parts.url, parts.masters, parts.token)
        app = make_app(store, parts.settings, stopping=stop.is_set)
        if parts.server is not None:
            stack.push_async_callback(end, asyncio.create_task(parts.server.supervise(_watcher(app[METRICS]))))
        runner = Runner(app, access_log=None, handle_signals=False, shutdown_timeout=_SHUTDOWN_S)
        await runner.setup()
        stack.push_async_callback(runner.cleanup)
        sockets = parts.sockets or _bound(parts.settings)
        if not parts.sockets:
            stack.enter_context(_noted(parts.settings, sockets))
            stack.callback(listening.remove_paths, listening.paths_of(sockets))
        await _listen(runner, parts.settings, sockets)
        parts.serves()
        _spare_the_collector()
        await stop.wait()
        _log.info("stopping")
        await asyncio.sleep(_NOTICE_S)
    _log.info("stopped")
    if store.failure is not None:
        raise store.failure


async def _watch_workers(parts: Parts, work: workers.Work) -> None:
    stop = _stop_event()
    store = make_store(parts.settings, parts.url, parts.masters, parts.token)
    try:
        # Once, before the children: what keeps a store from opening is said once, and migrations run alone.
        await store.open()
    except NotLetIn:
        raise
    except Unavailable:
        pass  # the children wait for it
    finally:
        await store.close()
    async with AsyncExitStack() as stack:
        if parts.server is not None:
            metrics = Metrics(version("baileys-auth-store"))
            stack.push_async_callback(end, asyncio.create_task(parts.server.supervise(_watcher(metrics))))
        _tls(parts.settings)  # said once here, not by each child
        sockets = _bound(parts.settings)
        stack.enter_context(_noted(parts.settings, sockets))
        ending = partial(listening.remove_paths, listening.paths_of(sockets))
        await workers.watch(parts.settings.workers, work, stop, sockets, ending)


def _run_worker(
    settings: Settings,
    url: str,
    reload: Callable[[], Settings],
    sockets: Sequence[socket.socket],
    serves: Callable[[], None],
) -> None:
    """A child's whole life. What ends it is logged here: multiprocessing would print the text of any exception."""
    try:
        prepare_process(settings)
        masters = first_secrets.master_keys(settings, reload)
        parts = Parts(settings, url, masters, first_secrets.first_token(settings), sockets=sockets, serves=serves)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(parts))
    except Exception as error:
        _log.exception("a worker failed", exc=error)
        report(error)
        sys.exit(1)
    finally:
        close_sentry()


def _spare_the_collector() -> None:
    """What is there by now stays, and a request makes objects by the thousand that no cycle holds: look seldom."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _stop_event() -> asyncio.Event:
    """Set by SIGTERM and SIGINT. Also makes the loop report what escapes its tasks."""
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(loop_exception_handler)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


async def _listen(runner: Runner, settings: Settings, sockets: Sequence[socket.socket]) -> None:
    context = _tls(settings)
    for bound in sockets:
        tls = None if bound.family == socket.AF_UNIX else context
        await web.SockSite(runner, bound, ssl_context=tls).start()
    made = first_secrets.token_file(settings)
    for address in _addresses(settings, sockets):
        _log.info("listening", address=address, token_file=None if made is None else str(made))


@contextmanager
def _noted(settings: Settings, sockets: Sequence[socket.socket]) -> Iterator[None]:
    """Meanwhile the data folder tells where its service is."""
    if not settings.embedded:
        yield  # nothing of ours is kept there
        return
    try:
        whereabouts.note(settings.data_dir, _addresses(settings, sockets))
    except OSError:
        _log.warning("the data folder cannot note where this service listens")
    try:
        yield
    finally:
        whereabouts.forget(settings.data_dir)


def _addresses(settings: Settings, sockets: Sequence[socket.socket]) -> list[str]:
    return [listening.address_of(bound, tls=settings.tls_cert is not None) for bound in sockets]


def _bound(settings: Settings) -> list[socket.socket]:
    """Listening sockets on all that the settings name. Raises StartError."""
    sockets = listening.bind(settings.host, settings.port)
    if settings.unix_socket is not None:
        sockets.append(listening.bind_path(settings.unix_socket))
    return sockets


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    context = trust.for_a_server()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_cert, settings.tls_key)
        if settings.tls_client_ca is not None:
            context.load_verify_locations(settings.tls_client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError:
        raise StartError(
            "tls_cert, tls_key or tls_client_ca is not readable PEM, or they do not fit together"
        ) from None
    return context


def _watcher(metrics: Metrics) -> Callable[[ServerEvent], None]:
    def watch(event: ServerEvent) -> None:
        if event.kind == "exited":
            metrics.postgres_restart()
        _tell(event)

    return watch


def _tell(event: ServerEvent) -> None:
    if event.kind == "exited":
        _log.error("the embedded Postgres ended", exit_code=event.exit_code)
    elif event.kind == "waiting":
        _log.warning("waiting for processes of an earlier Postgres to end")
    elif event.kind == "failed" and event.error is not None:
        _log.exception("the embedded Postgres did not start", exc=event.error)
        report(event.error)
