"""The one middleware: whose request, its answer or problem, and what is counted of it."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web

from service.errors import Unavailable
from service.http.access import caller_of
from service.http.failures import account_for, route_of
from service.http.keys import CALLER, DEADLINE, METRICS, OPEN_ROUTES, STOPPING, STORE, TIMEOUT_S
from service.http.problems import response_of
from service.observe import new_request_id, set_request_id

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_COMPRESSED_FROM: Final = 1024


@web.middleware
async def edge(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Finds the caller, answers every error as a problem, counts. Unknown paths need a token too."""
    started = time.perf_counter()
    request_id = new_request_id()
    set_request_id(request_id)
    route = route_of(request)
    try:
        response = await _in_time(request, route, handler)
    except ConnectionError:
        raise  # the client is gone; a database that is gone is Unavailable
    except Exception as error:
        response = response_of(account_for(request, error), error)
    if not response.prepared:
        response.headers["X-Request-Id"] = request_id
        _compress(request, response)
        if request.app[STOPPING]():
            response.force_close()  # or the next request meets a connection that is about to be closed
    request.app[METRICS].request(request.method, route, response.status, time.perf_counter() - started)
    return response


async def _in_time(request: web.Request, route: str, handler: Handler) -> web.StreamResponse:
    """The answer, or Unavailable once the request's time is over; a handler that streams lifts the deadline."""
    deadline = asyncio.timeout(request.app[TIMEOUT_S])
    request[DEADLINE] = deadline
    try:
        async with deadline:
            if route not in OPEN_ROUTES:
                request[CALLER] = await caller_of(request, request.app[STORE])
            return await handler(request)
    except TimeoutError:
        if not deadline.expired():
            raise
        raise Unavailable("not answered in time; what was asked may still have happened") from None


def _compress(request: web.Request, response: web.StreamResponse) -> None:
    if "gzip" not in request.headers.get("Accept-Encoding", "") or "Content-Encoding" in response.headers:
        return
    body = response.body if isinstance(response, web.Response) else None
    if isinstance(body, bytes) and len(body) >= _COMPRESSED_FROM:
        response.enable_compression(web.ContentCoding.gzip)
