"""What the outside may see of a running service: logs, metrics, error reports. Never a value, id, token or key.

Everything here works by allow-list. A log line is a constant text and known fields of known form; an error is its class
and where it was raised, never its text; a metric's labels come from code, never from a request.
``logs``, ``reports`` and ``metrics`` hold one of these each; ``frames`` says what an exception may show.
"""

from service.observe.frames import current_request_id, set_request_id
from service.observe.logs import Log, get_logger, install_hooks, loop_exception_handler, setup_logging
from service.observe.metrics import Metrics
from service.observe.reports import close_sentry, report, setup_sentry
from service.observe.request_id import new_request_id

__all__ = [
    "Log",
    "Metrics",
    "close_sentry",
    "current_request_id",
    "get_logger",
    "install_hooks",
    "loop_exception_handler",
    "new_request_id",
    "report",
    "set_request_id",
    "setup_logging",
    "setup_sentry",
]
