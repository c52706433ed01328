"""Which fields a log line or a report may carry, and the form each must have."""

import math
import re
from collections.abc import Mapping
from typing import Final

_NAME: Final = r"[A-Za-z_][A-Za-z0-9_.:-]{0,63}"
# A route as the URL table writes it: never the path of a request.
ROUTE: Final = r"(?:/(?:[a-z0-9._-]+|\{[a-z_]+\})?)+|unmatched"
_FORMS: Final[dict[str, re.Pattern[str]]] = {
    form: re.compile(pattern)
    for form, pattern in {
        "name": _NAME,
        "request id": r"[0-9a-f]{32}",
        "SQLSTATE": r"[0-9A-Z]{5}",
        "method": r"[A-Z]{1,10}",
        "route": ROUTE,
        "version": r"[0-9A-Za-z][0-9A-Za-z. ()+_-]{0,63}",
        "address": r"(?:https?://)?[0-9A-Za-z.:\[\]%-]{1,255}|unix:/[^\x00-\x1f]{1,255}",
        # As `dsn.redacted` gives it: no password before the host, and no parameter that may hold one.
        "database": r"embedded|postgres(?:ql)?://(?:[^\x00-\x20@:/]{1,128}@)?[^\x00-\x20@?]{0,512}(?:\?sslmode=[a-z-]{1,16})?",
        "path": r"[^\x00-\x1f]{1,4096}",
    }.items()
}
_NUMBER: Final = "number"
_FIELDS: Final[dict[str, str]] = {
    **dict.fromkeys(["statement", "outcome", "backend", "phase", "signal", "role", "lane"], "name"),
    **dict.fromkeys(["release", "version", "server_version"], "version"),
    **dict.fromkeys(["path", "data_dir", "settings_file", "token_file", "master_key_file"], "path"),
    "request_id": "request id",
    "method": "method",
    "route": "route",
    "sqlstate": "SQLSTATE",
    "address": "address",
    "database": "database",
    **dict.fromkeys(["status", "duration_ms", "pid", "port", "workers", "exit_code", "attempt", "delay_s"], _NUMBER),
    **dict.fromkeys(["count", "rows", "bytes", "sessions", "commits", "size", "limit", "schema"], _NUMBER),
    **dict.fromkeys(["busy", "idle", "waiting"], _NUMBER),
}
_SHOWABLE_NAME = re.compile(r"[a-z_]{1,40}")


def is_name(value: object) -> bool:
    """Whether a value has the form of a name that code gives: a logger, a statement."""
    return isinstance(value, str) and _FORMS["name"].fullmatch(value) is not None


def fits(name: str, value: object) -> bool:
    """Whether this field is known and this value has its form."""
    form = _FIELDS.get(name)
    if form == _NUMBER:
        return isinstance(value, int | float) and math.isfinite(value)
    return form is not None and isinstance(value, str) and _FORMS[form].fullmatch(value) is not None


def allowed(fields: Mapping[str, object]) -> tuple[dict[str, object], list[str]]:
    """The fields that may be shown, and the names of the rest (a name that looks like data is shown as "?")."""
    kept = {name: value for name, value in fields.items() if value is not None and fits(name, value)}
    rest = (name for name, value in fields.items() if value is not None and name not in kept)
    return kept, sorted({name if _SHOWABLE_NAME.fullmatch(name) else "?" for name in rest})
