"""What an exception may show: its class, its causes' classes, its SQLSTATE, and where it was raised. Never its text."""

import re
from collections.abc import Iterator
from contextvars import ContextVar
from types import TracebackType
from typing import Final

_DEPTH: Final = 20
_CAUSES: Final = 8
_SQLSTATE = re.compile(r"[0-9A-Z]{5}")

_request_id: ContextVar[str | None] = ContextVar("request_id", default=None)


def set_request_id(request_id: str | None) -> None:
    """Name the request the current task works for; its log lines and reports carry it."""
    _request_id.set(request_id)


def current_request_id() -> str | None:
    return _request_id.get()


def shown(error: BaseException) -> dict[str, object]:
    """An error as fields: ``error``, ``frames`` (``module:line function``, newest last), ``causes``, ``sqlstate``."""
    fields: dict[str, object] = {"error": class_name(error), "frames": list(_frames(error.__traceback__))[-_DEPTH:]}
    causes = [" ".join([class_name(cause), *list(_frames(cause.__traceback__))[-1:]]) for cause in _causes(error)]
    if causes:
        fields["causes"] = causes
    sqlstate = getattr(error, "sqlstate", None)
    if isinstance(sqlstate, str) and _SQLSTATE.fullmatch(sqlstate):
        fields["sqlstate"] = sqlstate
    return fields


def class_name(error: BaseException) -> str:
    kind = type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _frames(trace: TracebackType | None) -> Iterator[str]:
    while trace is not None:
        code = trace.tb_frame.f_code
        yield f"{trace.tb_frame.f_globals.get('__name__', '?')}:{trace.tb_lineno} {code.co_qualname}"
        trace = trace.tb_next


def _causes(error: BaseException) -> Iterator[BaseException]:
    """What led to an error: members of a group, then causes and contexts, each once."""
    seen = {id(error)}
    waiting: list[BaseException] = [error]
    while waiting and len(seen) <= _CAUSES:
        current = waiting.pop(0)
        members = list(current.exceptions) if isinstance(current, BaseExceptionGroup) else []
        before = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
        for found in [*members, *([before] if before else [])]:
            if id(found) not in seen:
                seen.add(id(found))
                waiting.append(found)
                yield found
