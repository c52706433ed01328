"""The web application around a store, and the store's life within it."""

import asyncio
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, suppress
from importlib.metadata import version
from typing import Final

from aiohttp import web

from service.config import Settings
from service.errors import NotLetIn, ServiceError, Unavailable
from service.http.edge import edge
from service.http.keys import METRICS, STOPPING, STORE, TIMEOUT_S
from service.http.router import add_routes
from service.integrity import open_findings
from service.migrate.mirror import Worker
from service.observe import (
    Metrics,
    get_logger,
    report,
)
from service.store import AuthStore

_log = get_logger("authstore.app")

_REOPEN_S: Final = 1.0
_REFRESH_S: Final = 1.0
_PURGE_EVERY: Final = 60  # refreshes


def make_app(store: AuthStore, settings: Settings, *, stopping: Callable[[], bool] = lambda: False) -> web.Application:
    """The web application around a store, which it opens at start-up and closes at the end."""
    app = web.Application(middlewares=[edge], client_max_size=settings.max_body_bytes)
    app[STORE] = store
    app[METRICS] = Metrics(version("baileys-auth-store"))
    app[STOPPING] = stopping
    app[TIMEOUT_S] = settings.request_timeout_s
    store.watch(app[METRICS])
    add_routes(app)
    where = "embedded" if settings.embedded else str(settings.redacted()["database_url"])
    app.cleanup_ctx.append(lambda app: _life(app, where))
    return app


async def _life(app: web.Application, where: str) -> AsyncIterator[None]:
    """Opens the store, in the background when the database is away; keeps house; closes. ``where``: to be said."""
    store = app[STORE]
    async with AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        try:
            await store.open()
        except NotLetIn:
            raise  # waiting changes nothing: somebody has to be told
        except Unavailable:
            _log.warning("the database is away, waiting for it", database=where)
            stack.push_async_callback(end, asyncio.create_task(_reopen(store)))
        else:
            stack.push_async_callback(end, asyncio.create_task(store.settler.run()))
        stack.push_async_callback(end, asyncio.create_task(_keep_house(store, app[METRICS])))
        stack.push_async_callback(end, asyncio.create_task(Worker(store, app[METRICS]).run()))
        yield


async def _reopen(store: AuthStore) -> None:
    """Waits for the database, and then does what a store that could open at once does from the start."""
    while not store.is_open:
        await asyncio.sleep(_REOPEN_S)
        try:
            await store.open()
        except NotLetIn as error:
            store.failure = error
        except Unavailable:
            continue
        except ServiceError as error:
            store.failure = error
        if store.failure is not None:
            _log.exception("the store cannot open", exc=store.failure)
            report(store.failure, level="fatal")
            signal.raise_signal(signal.SIGTERM)
            return
    _log.info("the database is there")
    await store.settler.run()


async def _keep_house(store: AuthStore, metrics: Metrics) -> None:
    rounds = 0
    failed: type[Exception] | None = None
    while True:
        await asyncio.sleep(_REFRESH_S)
        rounds += 1
        try:
            if store.masters.refresh():
                _log.info("other master keys are configured now")
            if store.is_open and rounds % _PURGE_EVERY == 0:
                await store.purge_expired()
                metrics.open_findings(await open_findings(store, None) or {})
        except Unavailable:
            continue
        except Exception as error:
            if type(error) is not failed:  # once, not every second
                _log.exception("housekeeping failed", exc=error)
                report(error)
            failed = type(error)
        else:
            failed = None


async def end(task: "asyncio.Task[None]") -> None:
    """Cancels a task and waits for it."""
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
