"""The URL table of the API, by what one comes for. The router and the reference are both made from it."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from service.http import handlers, health, health_answers, wire
from service.store.caller import Scope

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One call. ``scope``: the least that its token needs; ``body``, ``answer`` and ``down``, what it answers with 503 in place
    of a problem, are shapes; ``fails``: its problems beside those that follow from all this; ``must``: a header it needs.
    """

    method: str
    path: str
    handler: Handler
    does: str
    scope: Scope = "read"
    body: Any = None
    answer: Any = None
    down: Any = None
    fails: tuple[str, ...] = ()
    query: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    must: str = ""
    status: int = 200


_S: Final = "/v1/sessions/{session}"
_STEERING: Final = ("Lease-Epoch", "If-Match", "Idempotency-Key")
_READ: Final = ("no-session", "deleted", "corrupt")
_WRITTEN: Final = ("fenced", "identity-replaced", "counter-regressed", "deleted", "version-mismatch", "outcome-unknown",
                   "idempotency-key-reused", "corrupt")  # fmt: skip

GROUPS: Final[dict[str, tuple[Route, ...]]] = {
    "Writing": (
        Route("POST", _S + "/commit", handlers.commit,
              "Stores creds and keys: all of it or nothing, durable when answered. Makes the session when there is none.",
              scope="write", body=wire.CommitBody, answer=wire.CommitAnswer,
              fails=(*_WRITTEN, "pre-key-overwritten"), headers=_STEERING),
        Route("POST", "/v1/commits", handlers.commit_many,
              "Commits of many sessions in one request; each stands alone, and is answered with what `commit` would answer.",
              scope="write", body=wire.CommitsBody, answer=wire.CommitsAnswer),
        Route("PUT", _S + "/state", handlers.put_state,
              "Replaces the whole session: what is not in the body is gone. Makes the session when there is none.",
              scope="write", body=wire.StateBody, answer=wire.CommitAnswer, fails=_WRITTEN, headers=_STEERING),
    ),
    "Reading": (
        Route("POST", _S + "/keys/get", handlers.get_keys, "Values of keys by type and id; missing ids are left out.",
              body=wire.Asked, answer=wire.Keys, fails=_READ),
        Route("GET", _S + "/creds", handlers.get_creds, "The creds as they were sent; `ETag` is the version.",
              answer=wire.Creds, fails=("no-creds", *_READ)),
        Route("GET", _S + "/keys/{type}", handlers.list_keys, "Pages of one type: ids, or ids with values.",
              answer=wire.KeysPage, fails=_READ, query=("cursor", "limit", "values")),
        Route("GET", _S + "/state", handlers.get_state,
              "Creds and all keys in one snapshot, proven complete; `ETag` is the version.",
              answer=wire.StateAnswer, fails=_READ),
    ),
    "Leases": (
        Route("POST", _S + "/lease", handlers.take_lease,
              "Takes the lease, or renews it when the holder has it already. Writes then need its epoch as `Lease-Epoch`. "
              "Makes an empty session when there is none.",
              scope="write", body=wire.LeaseBody, answer=wire.LeaseAnswer, fails=("fenced", "deleted", "leased"),
              headers=("Lease-Epoch",)),
        Route("DELETE", _S + "/lease", handlers.release_lease, "Releases the lease of this `Lease-Epoch`.",
              scope="write", fails=("no-session", "fenced", "deleted"), headers=("Lease-Epoch",), must="Lease-Epoch",
              status=204),
    ),
    "Sessions": (
        Route("GET", "/v1/sessions", handlers.list_sessions, "Pages of summaries, by name.", answer=wire.ListAnswer,
              fails=("corrupt",), query=("prefix", "cursor", "limit")),
        Route("GET", _S, handlers.show_session, "One session's summary.", answer=wire.SummaryAnswer, fails=_READ),
        Route("DELETE", _S, handlers.delete_session,
              "Logout: 410 at once, restorable within the window, then destroyed. `purge=true` destroys now.",
              scope="write", answer=wire.DeleteAnswer, fails=("no-session", "fenced", "deleted"), query=("purge",),
              headers=("Lease-Epoch",)),
        Route("POST", _S + "/restore", handlers.restore_session, "Undoes a delete inside the window.",
              scope="write", answer=wire.SummaryAnswer, fails=_READ),
        Route("GET", _S + "/integrity", handlers.check_integrity,
              "Judges every row and all of them together; findings by rule.",
              answer=wire.IntegrityAnswer, fails=("no-session", "deleted")),
    ),
    "Operations": (
        Route("GET", "/health", health.ready, "Like `/health/ready`.",
              answer=health_answers.Up, down=health_answers.Down),
        Route("GET", "/health/live", health.live, "The process answers.", answer=health_answers.Up),
        Route("GET", "/health/ready", health.ready, "Whether a commit would succeed now.",
              answer=health_answers.Up, down=health_answers.Down),
        Route("GET", "/health/database", health.database, "The backend as the connection itself reports it.",
              answer=health_answers.DatabaseUp, down=health_answers.DatabaseDown),
        Route("GET", "/health/whatsapp", health.whatsapp,
              "Counts of the asking token's tenant; `open_findings` is null until anything of it was checked.",
              answer=health_answers.Census),
        Route("GET", "/metrics", health.metrics,
              "Prometheus metrics of the whole process, as text: for tokens of the tenant `default`; those of other tenants "
              "need the scope `admin`.", fails=("forbidden",)),
    ),
}  # fmt: skip

API: Final = tuple(route for routes in GROUPS.values() for route in routes)
