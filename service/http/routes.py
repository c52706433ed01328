"""The URL table of the API. The router and the reference are both made from it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import web

from service.http import handlers, health, wire

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One call. ``body`` and ``answer`` are shapes of `wire`; ``fails`` are statuses beside the common ones."""

    method: str
    path: str
    handler: Handler
    does: str
    body: Any = None
    answer: Any = None
    fails: tuple[int, ...] = ()
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    status: int = 200
    extra: dict[str, str] = field(default_factory=dict)


_STEERING: Final = ("Lease-Epoch", "If-Match", "Idempotency-Key")
_S: Final = "/v1/sessions/{session}"

API: Final = (
    Route("GET", "/v1/sessions", handlers.list_sessions, "Pages of summaries, by name.", answer=wire.ListAnswer,
          fails=(422,), query=("prefix", "cursor", "limit")),
    Route("GET", _S, handlers.show_session, "One session's summary.", answer=wire.SummaryAnswer, fails=(404, 410, 422)),
    Route("DELETE", _S, handlers.delete_session,
          "Logout: 410 at once, restorable within the window, then destroyed. purge=true destroys now.",
          answer=wire.DeleteAnswer, fails=(404, 409, 410, 422), query=("purge",), headers=("Lease-Epoch",)),
    Route("POST", _S + "/restore", handlers.restore_session, "Undoes a delete inside the window.",
          answer=wire.SummaryAnswer, fails=(404, 422)),
    Route("GET", _S + "/creds", handlers.get_creds, "The creds as they were sent; ETag is the version.",
          answer=wire.Creds, fails=(404, 410, 422)),
    Route("POST", _S + "/keys/get", handlers.get_keys, "{type: [id, ...]} -> {type: {id: value}}; missing ids are left out.",
          body=dict[str, list[str]], answer=wire.Keys, fails=(404, 410, 422)),
    Route("GET", _S + "/keys/{type}", handlers.list_keys, "Pages of one type: ids, or ids with values.",
          answer=wire.KeysPage, fails=(404, 410, 422), query=("cursor", "limit", "values")),
    Route("POST", _S + "/commit", handlers.commit, "All of it or nothing, durable when answered; null deletes.",
          body=wire.CommitBody, answer=wire.CommitAnswer, fails=(409, 410, 412, 422), headers=_STEERING),
    Route("POST", "/v1/commits", handlers.commit_many, "Commits of many sessions; each stands alone.",
          body=wire.CommitsBody, answer=wire.CommitsAnswer, fails=(422,)),
    Route("GET", _S + "/state", handlers.get_state, "Creds and all keys in one snapshot, proven complete.",
          answer=wire.StateAnswer, fails=(404, 410, 422)),
    Route("PUT", _S + "/state", handlers.put_state, "Replaces the whole session atomically.",
          body=wire.StateBody, answer=wire.CommitAnswer, fails=(409, 410, 412, 422), headers=_STEERING),
    Route("POST", _S + "/lease", handlers.take_lease, "Takes or renews the lease; makes an empty session when there is none.",
          body=wire.LeaseBody, answer=wire.LeaseAnswer, fails=(409, 410, 422, 423), headers=("Lease-Epoch",)),
    Route("DELETE", _S + "/lease", handlers.release_lease, "Releases the lease of this Lease-Epoch.",
          fails=(404, 409, 410, 422), headers=("Lease-Epoch",), status=204),
    Route("GET", _S + "/integrity", handlers.check_integrity, "Judges every row and all of them together; findings by rule.",
          answer=wire.IntegrityAnswer, fails=(404, 410, 422)),
    Route("GET", "/health", health.ready, "Like /health/ready."),
    Route("GET", "/health/live", health.live, "The process."),
    Route("GET", "/health/ready", health.ready, "Whether a commit would succeed now."),
    Route("GET", "/health/database", health.database, "The backend as the connection itself reports it."),
    Route("GET", "/health/whatsapp", health.whatsapp,
          "Counts of the asking token's tenant; open_findings is null until anything of it was checked."),
    Route("GET", "/metrics", health.metrics,
          "Prometheus metrics of the whole process: for tokens of the tenant default, and for admins.", fails=(403,)),
)  # fmt: skip
