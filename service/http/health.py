"""Health answers and metrics. None has side effects, none holds a secret."""

from typing import Any, Final

from aiohttp import web

from service.errors import ServiceError, Unavailable
from service.http.keys import CALLER, METRICS, STOPPING, STORE
from service.http.raw_json import encode
from service.integrity import by_severity, open_findings
from service.store import AuthStore
from service.store.tokens import DEFAULT_TENANT

_FULL_QUEUE: Final = 5000


async def live(_: web.Request) -> web.Response:
    """The process answers."""
    return _answer({"status": "ok"})


async def ready(request: web.Request) -> web.Response:
    """Database reachable and writable, schema as expected, master key opens, queues not saturated, not stopping."""
    store = request.app[STORE]
    if request.app[STOPPING]():
        return _answer({"status": "unavailable", "reason": "stopping"}, 503)
    try:
        if not store.is_open:
            raise Unavailable
        await store.check_ready()
    except ServiceError as error:
        return _answer({"status": "unavailable", "reason": error.detail}, 503)
    if store.write_lanes.waiting > _FULL_QUEUE:
        return _answer({"status": "unavailable", "reason": "too much is waiting for the database"}, 503)
    return _answer({"status": "ok"})


async def database(request: web.Request) -> web.Response:
    """The backend as the connection itself reports it."""
    store = request.app[STORE]
    pool = _pool(store)
    try:
        if not store.is_open:
            raise Unavailable
        backend = await store.backend()
    except ServiceError as error:
        return _answer({"status": "unavailable", "reason": error.detail, "pool": pool}, 503)
    return _answer(
        {
            "status": "ok",
            "backend": f"PostgreSQL {backend.version}",
            "role": "standby" if backend.standby else "primary",
            "writable": backend.writable,
            "latency_ms": backend.latency_ms,
            "schema": backend.schema,
            "fsync": backend.fsync,
            "synchronous_commit": backend.synchronous_commit,
            "synchronous_standbys": backend.has_sync_standbys,
            "pool": pool,
        }
    )


async def whatsapp(request: web.Request) -> web.Response:
    """Counts of the asking token's tenant. ``open_findings`` null: nothing of it was ever checked."""
    store, caller = request.app[STORE], request[CALLER]
    counted = await store.census(caller)
    newest = counted.pop("newest", None)
    found = await open_findings(store, caller)
    findings = None if found is None else by_severity(found)
    return _answer({"status": "ok", **counted, "newest_write": newest, "open_findings": findings})


async def metrics(request: web.Request) -> web.Response:
    """Prometheus text, of all tenants together: for the operator."""
    caller = request[CALLER]
    if caller.tenant != DEFAULT_TENANT:
        caller.need("admin")
    store, gauges = request.app[STORE], request.app[METRICS]
    busy, idle, waiting = store.database.usage()
    lanes = (store.write_lanes, store.read_lanes)
    gauges.pool(
        busy=busy + sum(lane.busy for lane in lanes),
        idle=idle,
        waiting=waiting + sum(lane.waiting for lane in lanes),
    )
    body, kind = gauges.render()
    return web.Response(body=body, headers={"Content-Type": kind})


def _pool(store: AuthStore) -> dict[str, int]:
    busy, idle, waiting = store.database.usage()
    return {
        "busy": busy + store.write_lanes.busy + store.read_lanes.busy,
        "idle": idle,
        "waiting": waiting + store.write_lanes.waiting + store.read_lanes.waiting,
    }


def _answer(body: dict[str, Any], status: int = 200) -> web.Response:
    return web.Response(body=encode(body), status=status, content_type="application/json")
