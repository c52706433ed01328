"""What a browser opens: the reference, readable offline, and the console. Empty shells: the data needs a token."""

import html
from functools import cache
from importlib import resources
from importlib.metadata import version
from typing import Any, Final

from aiohttp import web

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
    document = _document()
    calls = [
        _call(path, method, operation)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
    ]
    return _file("docs.html").replace("<!-- calls -->", "\n".join(calls))


def _call(path: str, method: str, operation: dict[str, Any]) -> str:
    parameters = "".join(
        f"<li><code>{html.escape(each['name'])}</code> ({each['in']}) {html.escape(each.get('description', ''))}</li>"
        for each in operation["parameters"]
    )
    answers = "".join(
        f"<li><code>{status}</code> {html.escape(answer['description'])}</li>"
        for status, answer in operation["responses"].items()
    )
    return (
        f"<section><h2><span>{method.upper()}</span> <code>{html.escape(path)}</code></h2>"
        f"<p>{html.escape(operation['summary'])}</p>"
        + (f"<h3>Parameters</h3><ul>{parameters}</ul>" if parameters else "")
        + f"<h3>Answers</h3><ul>{answers}</ul></section>"
    )
