"""Registers every call and page."""

from typing import Final

from aiohttp import web

from service.http import pages
from service.http.routes import API

PAGES: Final = (
    ("/openapi.json", pages.openapi),
    ("/docs", pages.docs),
    ("/docs.css", pages.style),
    ("/", pages.console),
    ("/console.js", pages.console_script),
)


def add_routes(app: web.Application) -> None:
    """Adds them to the application. Paths name their variables as the reference does."""
    for route in API:
        # A variable takes whatever stands between two slashes, for the grammar of names to judge.
        app.router.add_route(route.method, route.path.replace("}", ":[^/]+}"), route.handler)
    for path, handler in PAGES:
        app.router.add_get(path, handler)
