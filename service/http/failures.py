"""A failed request, told twice: to its sender as a problem, to the operator in log, report and metrics."""

from typing import Final

from aiohttp import web

from service.errors import Corrupt, WrongMasterKey
from service.http.keys import METRICS
from service.http.problems import problem_of
from service.http.wire import Problem
from service.observe import current_request_id, get_logger, report

_SERVER_FAULT: Final = 500
_UNAVAILABLE: Final = 503
_log = get_logger("authstore.http")


def route_of(request: web.Request) -> str:
    """The template of the request's URL, never the URL."""
    resource = request.match_info.route.resource
    return "unmatched" if resource is None else resource.canonical


def account_for(request: web.Request, error: Exception) -> Problem:
    """What may be said of the error; what is our fault is logged and reported."""
    problem = problem_of(error, current_request_id())
    if problem.status >= _SERVER_FAULT:
        route, method = route_of(request), request.method
        # A key that is not configured passes only when somebody hears of it.
        if problem.status == _UNAVAILABLE and not isinstance(error, WrongMasterKey):
            _log.warning("unavailable", route=route, method=method, status=problem.status)
        else:
            _log.exception("request failed", exc=error, route=route, method=method, status=problem.status)
            report(error, route=route, method=method)
        if isinstance(error, Corrupt):
            request.app[METRICS].corrupt()
    return problem
