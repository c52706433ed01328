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


_OFTEN: Final = ("/keys/get", "/commit")


def add_routes(app: web.Application) -> None:
    """Adds them to the application. Paths name their variables as the reference does."""
    # The router tries the paths of sessions one after the other: those that are asked for most come first.
    for route in sorted(API, key=lambda route: not route.path.endswith(_OFTEN)):
        # A variable takes whatever stands between two slashes, for the grammar of names to judge.
        app.router.add_route(route.method, route.path.replace("}", ":[^/]+}"), route.handler)
    for path, handler in PAGES:
        app.router.add_get(path, handler)
