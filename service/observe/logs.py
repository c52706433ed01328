"""Logs: one line per event, JSON or console, on standard error. The only importer of structlog.

Our own lines and those of every library end in the same chain. Its last step but the rendering keeps what
:mod:`service.observe.fields` knows and drops the rest, naming it. A library's text is never shown: it may hold
arguments; its logger, level and exception class are.
"""

import asyncio
import json
import logging
import sys
import threading
import warnings
from collections.abc import MutableMapping
from types import FrameType, TracebackType
from typing import Any, Final, Literal, LiteralString, TextIO

import structlog
from structlog.typing import Processor
from typing_extensions import override

from service.observe import fields, frames
from service.observe.reports import report

Format = Literal["json", "console", "auto"]
Level = Literal["debug", "info", "warning", "error"]
_Event = MutableMapping[str, Any]

_OURS: Final = ("service", "protocol")
_FOREIGN: Final = "library message"
_WARNING: Final = "a warning of Python or a library"
# Failures that only these libraries see. Others (the driver's pool, the report's own transport) retry by themselves.
_REPORTED: Final = frozenset({"asyncio", "aiohttp.server", "aiohttp.web"})
# What the event loop says in constant words; its other messages may be built from data.
_LOOP_MESSAGES: Final = (
    "Task was destroyed but it is pending!",
    "Task exception was never retrieved",
    "Future exception was never retrieved",
)


class _Sink:
    """Where lines go. A log that cannot be written never stops the service."""

    stream: TextIO | None = None
    threshold: int = logging.INFO

    def write(self, line: str) -> None:
        stream = self.stream or sys.stderr
        try:
            stream.write(f"{line}\n")
            stream.flush()
        except (OSError, ValueError):
            pass

    debug = info = warning = error = write


_sink = _Sink()


class Log(structlog.BoundLoggerBase):
    """A logger. Events are constant texts; fields those of :mod:`service.observe.fields`, others are dropped."""

    def debug(self, event: LiteralString, /, *, exc: BaseException | None = None, **fields: object) -> None:
        self._emit(logging.DEBUG, "debug", event, exc, fields)

    def info(self, event: LiteralString, /, *, exc: BaseException | None = None, **fields: object) -> None:
        self._emit(logging.INFO, "info", event, exc, fields)

    def warning(self, event: LiteralString, /, *, exc: BaseException | None = None, **fields: object) -> None:
        self._emit(logging.WARNING, "warning", event, exc, fields)

    def error(self, event: LiteralString, /, *, exc: BaseException | None = None, **fields: object) -> None:
        self._emit(logging.ERROR, "error", event, exc, fields)

    def exception(self, event: LiteralString, /, *, exc: BaseException, **fields: object) -> None:
        """An error that was caught: shows as its class, its causes' classes and its frames, never its text."""
        self._emit(logging.ERROR, "error", event, exc, fields)

    def _emit(self, number: int, level: str, event: str, exc: BaseException | None, given: dict[str, object]) -> None:
        if number >= _sink.threshold:
            self._proxy_to_logger(level, event, exc=exc, given=given)


def get_logger(name: str) -> Log:
    """The logger of a module; usable before :func:`setup_logging`, which may also be called again."""
    return Log(_sink, _chain, {"logger": name})


def setup_logging(log_format: Format = "auto", level: Level = "info", *, stream: TextIO | None = None) -> None:
    """Decide form and level of every line, ours and the libraries'; takes over the root logger and the warnings.

    ``auto`` is console on a terminal and JSON elsewhere. Libraries are heard from ``warning`` on.
    """
    _sink.stream = stream
    _sink.threshold = logging.getLevelNamesMapping()[level.upper()]
    terminal = (stream or sys.stderr).isatty()
    console = log_format == "console" or (log_format == "auto" and terminal)
    _chain[-1] = structlog.dev.ConsoleRenderer(colors=terminal) if console else _json
    warnings.showwarning = _warned
    logging.basicConfig(level=logging.WARNING, handlers=[_Routed()], force=True)
    for name in _OURS:
        logging.getLogger(name).setLevel(_sink.threshold)


def install_hooks() -> None:
    """Show uncaught exceptions of the process, its threads and its finalizers as log lines instead of tracebacks."""
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _gone_wrong("uncaught exception in a thread", args.exc_value)
    sys.unraisablehook = lambda args: _gone_wrong("exception in a finalizer", args.exc_value)


def loop_exception_handler(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """For ``loop.set_exception_handler``. The context's objects hold arguments and are never shown."""
    message = context.get("message")
    known = next((text for text in _LOOP_MESSAGES if text == message), "unhandled exception in the event loop")
    _gone_wrong(known, context.get("exception"))


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        _gone_wrong("uncaught exception", error.with_traceback(trace))


def _gone_wrong(event: LiteralString, error: BaseException | None) -> None:
    _log.error(event, exc=error)
    if error is not None:
        report(error)


def _warned(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """For ``warnings.showwarning``: its class and its place. Its text may hold arguments."""
    del filename, file, line
    warning = message if isinstance(message, Warning) else category()
    frame = _warner(lineno)
    trace = None if frame is None else TracebackType(None, frame, frame.f_lasti, lineno)
    get_logger("py.warnings").warning(_WARNING, exc=warning.with_traceback(trace))


def _warner(lineno: int) -> FrameType | None:
    """The frame that is warned about, if it is still under way."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and (frame.f_lineno != lineno or frame.f_globals.get("__name__") == __name__):
        frame = frame.f_back
    return frame


class _Routed(logging.Handler):
    """Brings the standard library's records into the chain."""

    @override
    def emit(self, record: logging.LogRecord) -> None:
        ours = record.name.partition(".")[0] in _OURS
        error = record.exc_info[1] if record.exc_info else None
        # The template, not getMessage(): the arguments are what may not be seen.
        event = record.msg if ours and isinstance(record.msg, str) else _FOREIGN
        getattr(get_logger(record.name), _level_name(record.levelno))(event, exc=error)
        if error is not None and record.levelno >= logging.ERROR and record.name in _REPORTED:
            report(error)

    @override
    def handleError(self, record: logging.LogRecord) -> None:
        """The default prints the record with its arguments."""
        _sink.write(json.dumps({"event": "a log record failed", "level": "error", "logger": record.name}))


def _level_name(number: int) -> str:
    return next(
        (name for name in ("error", "warning", "info") if number >= logging.getLevelNamesMapping()[name.upper()]),
        "debug",
    )


def _scrub(_logger: object, level: str, event: _Event) -> _Event:
    """Keep what may be shown. The last step before rendering, and the only way past it."""
    kept, dropped = fields.allowed(event.get("given") or {})
    request_id = frames.current_request_id()
    exc = event.get("exc")
    return {
        "timestamp": event["timestamp"],
        "level": level,
        "logger": event["logger"] if fields.is_name(event["logger"]) else "?",
        "event": event["event"],
        **({"request_id": request_id} if request_id else {}),
        **kept,
        **(frames.shown(exc) if exc is not None else {}),
        **({"dropped": dropped} if dropped else {}),
    }


def _json(_logger: object, _level: str, event: _Event) -> str:
    return json.dumps(event, ensure_ascii=False, separators=(",", ":"))


_chain: list[Processor] = [structlog.processors.TimeStamper(fmt="iso", utc=True), _scrub, _json]
_log = get_logger(__name__)
