"""The one middleware: whose request, its answer or problem, and what is counted of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from service.errors import Unavailable
from service.http.access import caller_of
from service.http.echo import echo
from service.http.failures import account_for, route_of
from service.http.keys import CALLER, DEADLINE, METRICS, OPEN_ROUTES, STOPPING, STORE, TIMEOUT_S
from service.http.problems import response_of
from service.observe import new_request_id, set_request_id

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_LATE: Final = "not answered in time; what was asked may still have happened"
_COMPRESSED_FROM: Final = 1024


@web.middleware
async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Finds the caller, answers every error as a problem, counts. Unknown paths need a token too."""
    started = time.perf_counter()
    request_id = new_request_id()
    set_request_id(request_id)
    app, route = request.app, route_of(request)
    deadline = request[DEADLINE] = asyncio.timeout(app[TIMEOUT_S])  # a handler that streams lifts it
    try:
        async with deadline:
            if route not in OPEN_ROUTES:
                request[CALLER] = await caller_of(request, app[STORE])
            response = await handler(request)
    except ConnectionError:
        raise  # the client is gone; a database that is gone is Unavailable
    except Exception as caught:
        error = Unavailable(_LATE) if isinstance(caught, TimeoutError) and deadline.expired() else caught
        response = response_of(account_for(request, error), error)
    if not response.prepared:
        response.headers["X-Request-Id"] = request_id
        echo(request, response)
        _compress(request, response)
        if app[STOPPING]():
            response.force_close()  # or the next request meets a connection that is about to be closed
    app[METRICS].request(request.method, route, response.status, time.perf_counter() - started)
    return response


def _compress(request: web.Request, response: web.StreamResponse) -> None:
    if "gzip" not in request.headers.get("Accept-Encoding", "") or "Content-Encoding" in response.headers:
        return
    body = response.body if isinstance(response, web.Response) else None
    if isinstance(body, bytes) and len(body) >= _COMPRESSED_FROM:
        response.enable_compression(web.ContentCoding.gzip)
