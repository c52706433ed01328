"""Error reports to Sentry: one per failure, sent where it is caught. The only importer of sentry_sdk.

No integration of the SDK is used: those for requests and statements cost most of the throughput, and all of them
collect more than may leave. What leaves is rebuilt from an allow-list; anything that is not an exception stays here.
"""

import logging
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any, Final, Literal, cast

import sentry_sdk
from sentry_sdk.transport import Transport
from sentry_sdk.types import Event, Hint

from service.observe import fields
from service.observe.frames import current_request_id

_KEPT: Final = ("event_id", "timestamp", "platform", "level", "release", "environment")
_FRAME: Final = ("module", "function", "lineno", "filename", "in_app")
_MARK: Final = "_authstore_reported"


def setup_sentry(
    dsn: str | None,
    environment: str = "production",
    release: str | None = None,
    *,
    transport: Transport | None = None,
    scrub: bool = True,
) -> None:
    """Send reports to this DSN from now on; None sends nothing anywhere.

    ``transport`` replaces the network. ``scrub=False`` is for the leak tests' control alone: the SDK as it comes, with
    locals, bodies, texts and integrations; no setting reaches it.
    """
    release = release or version("baileys-auth-store")
    if dsn is None:
        close_sentry()
    elif not scrub:
        sentry_sdk.init(
            dsn=dsn, environment=environment, release=release, transport=transport, max_request_body_size="always"
        )
    else:
        # spotlight and debug would otherwise be taken from the environment, and send or print what is seen here.
        sentry_sdk.init(
            dsn=dsn,
            environment=environment,
            release=release,
            transport=transport,
            before_send=_rebuilt,
            default_integrations=False,
            auto_enabling_integrations=False,
            include_local_variables=False,
            include_source_context=False,
            max_request_body_size="never",
            max_breadcrumbs=0,
            traces_sample_rate=None,
            propagate_traces=False,
            auto_session_tracking=False,
            send_client_reports=False,
            enable_logs=False,
            spotlight=False,
            debug=False,
        )
        logging.getLogger("sentry_sdk.errors").setLevel(logging.CRITICAL)


def close_sentry(timeout_s: float = 2.0) -> None:
    """Send what waits, for at most this long, and send nothing more."""
    sentry_sdk.get_client().close(timeout=timeout_s)
    sentry_sdk.get_global_scope().set_client(None)


def report(
    error: BaseException,
    *,
    request_id: str | None = None,
    route: str | None = None,
    method: str | None = None,
    statement: str | None = None,
    level: Literal["error", "fatal", "warning"] = "error",
) -> None:
    """Report a failure, once however often it is called for the same error. Does nothing when no DSN is set.

    ``route`` is the template, ``statement`` the name. The request id is the current task's unless given.
    """
    if not sentry_sdk.get_client().is_active() or getattr(error, _MARK, False):
        return
    error.__dict__[_MARK] = True
    named = {"request_id": request_id or current_request_id(), "route": route, "method": method, "statement": statement}
    kept, _ = fields.allowed({**named, "sqlstate": getattr(error, "sqlstate", None)})
    with sentry_sdk.new_scope() as scope:
        scope.set_level(level)
        for name, value in kept.items():
            scope.set_tag(name, str(value))
        scope.capture_exception(error)


def _rebuilt(event: Event, _hint: Hint) -> Event | None:
    raised = _list(event.get("exception"), "values")
    if not raised:
        return None
    rebuilt: dict[str, Any] = {name: event[name] for name in _KEPT if name in event}
    rebuilt["exception"] = {"values": [_exception(each) for each in raised]}
    tags = event.get("tags")
    rebuilt["tags"] = fields.allowed(tags)[0] if isinstance(tags, Mapping) else {}
    return cast("Event", rebuilt)


def _exception(raised: Mapping[str, Any]) -> dict[str, Any]:
    frames = _list(raised.get("stacktrace"), "frames")
    kept: dict[str, Any] = {name: raised[name] for name in ("type", "module") if name in raised}
    kept["stacktrace"] = {"frames": [{name: frame[name] for name in _FRAME if name in frame} for frame in frames]}
    return kept


def _list(holder: object, name: str) -> list[Mapping[str, Any]]:
    """The mappings listed under a name; the SDK's types allow wrappers and gaps everywhere."""
    found = holder.get(name) if isinstance(holder, Mapping) else None
    return [each for each in found if isinstance(each, Mapping)] if isinstance(found, list) else []
