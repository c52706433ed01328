"""What handlers find on the application and on the request."""

import asyncio
from collections.abc import Callable
from typing import Final

from aiohttp import web

from service.observe import Metrics
from service.store import AuthStore, Caller

STORE: Final = web.AppKey("store", AuthStore)
METRICS: Final = web.AppKey("metrics", Metrics)
STOPPING: Final[web.AppKey[Callable[[], bool]]] = web.AppKey("stopping")
TIMEOUT_S: Final = web.AppKey("timeout_s", float)
CALLER: Final = web.RequestKey("caller", Caller)
DEADLINE: Final = web.RequestKey("deadline", asyncio.Timeout)

OPEN_ROUTES: Final = frozenset(
    {"/health", "/health/live", "/health/ready", "/health/database", "/", "/docs", "/docs.css", "/console.js"}
)
"""Routes without a token: health answers hold no secret, and the pages are empty shells that ask for one."""
