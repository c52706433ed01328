"""What a browser opens: the reference, readable offline, and the console. Empty shells: the data needs a token."""

from functools import cache
from importlib import resources
from importlib.metadata import version
from typing import Any, Final

from aiohttp import web

from service.http import reference
from service.http.openapi import document
from service.http.raw_json import encode

_CSP: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; form-action 'none'; "
    "frame-ancestors 'none'; base-uri 'none'"
)


async def openapi(_: web.Request) -> web.Response:
    """The reference as JSON."""
    return web.Response(body=encode(_document()), content_type="application/json")


async def docs(_: web.Request) -> web.Response:
    """The reference as a page."""
    return _page(_reference(), "text/html")


async def style(_: web.Request) -> web.Response:
    return _page(_file("pages.css"), "text/css")


async def console(_: web.Request) -> web.Response:
    """Sessions at a glance."""
    return _page(_file("console.html"), "text/html")


async def console_script(_: web.Request) -> web.Response:
    return _page(_file("console.js"), "text/javascript")


def _page(text: str, kind: str) -> web.Response:
    headers = {"Content-Security-Policy": _CSP, "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
    return web.Response(text=text, content_type=kind, headers=headers)


@cache
def _document() -> dict[str, Any]:
    return document(version("baileys-auth-store"))


@cache
def _file(name: str) -> str:
    return resources.files("service.http").joinpath("static", name).read_text("utf-8")


@cache
def _reference() -> str:
    return reference.page(_file("docs.html"), _document())
