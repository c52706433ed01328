"""Below the router: what is not HTTP, or is refused before the edge sees it, is a problem too and is never quoted.

aiohttp answers such requests with the piece it stumbled over, which may be a header with a token or a path with a name.
"""

import asyncio
from typing import Any, Final

from aiohttp import web
from typing_extensions import override

from service.http.echo import echo
from service.http.problems import problem_of, response_of
from service.observe import get_logger, new_request_id, report

_SERVER_FAULT: Final = 500
_FIRST_S: Final = 75.0
"""How long a new connection may take to send a whole request head."""
_IDLE_S: Final = 620.0
"""How long a connection is kept between requests: longer than the proxies of clouds keep theirs, which is up to 600 s."""
_log = get_logger("authstore.http")


class Runner(web.AppRunner):
    """An AppRunner whose connections answer everything by themselves, without a word of what they were sent.

    Bodies stay as they came: `body.py` unpacks them.
    """

    def __init__(self, app: web.Application, **options: Any) -> None:
        super().__init__(app, **{"auto_decompress": False, "keepalive_timeout": _IDLE_S} | options)

    @override
    async def _make_server(self) -> web.Server:
        server = await super()._make_server()
        server.__class__ = _Server
        return server


class _Server(web.Server):
    @override
    def __call__(self) -> web.RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)


class _Connection(web.RequestHandler):
    __slots__ = ()

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if self._keepalive_handle is not None:
            self._keepalive_handle.cancel()
        self._next_keepalive_close_time = self._loop.time() + _FIRST_S
        self._keepalive_handle = self._loop.call_later(_FIRST_S, self._process_keepalive)

    @override
    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = _SERVER_FAULT,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """What never became a request (400), and what escaped the edge (500)."""
        if isinstance(exc, ConnectionError) or request.writer.output_size > 0:
            raise ConnectionError("nobody listens, or an answer is under way already")
        error = web.HTTPBadRequest() if status < _SERVER_FAULT else web.HTTPInternalServerError()
        request_id = new_request_id()
        if status >= _SERVER_FAULT and exc is not None:
            _log.exception("request failed", exc=exc, status=status)
            report(exc, request_id=request_id)
        response = response_of(problem_of(error, request_id), error)
        echo(request, response)
        response.force_close()
        return response

    @override
    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        if isinstance(resp, web.HTTPException):  # raised before the edge: its text may quote a header
            resp = response_of(problem_of(resp), resp)
            echo(request, resp)
        return await super().finish_response(request, resp, start_time)
