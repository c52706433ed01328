"""The reference (OpenAPI 3.1), generated from the URL table and the shapes of bodies."""

import re
from collections.abc import Iterable
from typing import Any, Final

import msgspec

from service.http import wire
from service.http.echo import ECHO, ECHO_IS
from service.http.keys import OPEN_ROUTES
from service.http.problems import TABLE
from service.http.routes import API, Route

_REF: Final = "#/components/schemas/{name}"
_HEADERS: Final = {
    "Lease-Epoch": ("integer", "The epoch of the lease this write is made under."),
    "If-Match": ("string", 'The version it was made for, as "<version>".'),
    ECHO: ("string", ECHO_IS),
    "Idempotency-Key": ("string", "A UUID; a commit sent twice applies once, while it is among the last sixteen."),
}
_QUERY: Final = {
    "prefix": ("string", "Only names that begin with this."),
    "cursor": ("string", "`next` of the page before."),
    "limit": ("integer", "1 to 1000, 100 unless told."),
    "values": ("boolean", "With the values."),
    "purge": ("boolean", "Destroy now, leave nothing to restore."),
}
_COMMON: Final[tuple[int, ...]] = (400, 401, 403, 413, 415, 500, 503)


def document(version: str) -> dict[str, Any]:
    """The whole reference as JSON."""
    shapes = [shape for route in API for shape in (route.body, route.answer) if shape is not None]
    schemas, components = msgspec.json.schema_components([*shapes, wire.Problem], ref_template=_REF)
    by_shape = {id(shape): schema for shape, schema in zip([*shapes, wire.Problem], schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in API:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, by_shape)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "baileys-auth-store",
            "version": version,
            "description": "The auth state of WhatsApp sessions: sealed, atomic, fenced.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "security": [{"token": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(route: Route, schemas: dict[int, Any]) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.handler.__name__ if route.path != "/health" else "health",
        "summary": route.does,
        "parameters": [
            *_path_parameters(route),
            *_named("query", route.query),
            *_named("header", (*route.headers, ECHO)),
        ],
        "responses": {str(route.status): _answer(route, schemas), **_problems(route, schemas)},
    }
    if route.body is not None:
        content = {"application/json": {"schema": schemas[id(route.body)]}}
        operation["requestBody"] = {"required": True, "content": content}
    if route.path in OPEN_ROUTES:
        operation["security"] = []
    return operation


def _answer(route: Route, schemas: dict[int, Any]) -> dict[str, Any]:
    if route.answer is None:
        return {"description": "Done."}
    return {"description": "Done.", "content": {"application/json": {"schema": schemas[id(route.answer)]}}}


def _problems(route: Route, schemas: dict[int, Any]) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": schemas[id(wire.Problem)]}}
    common, more = _COMMON, dict[str, Any]()
    if route.path.startswith(("/health", "/metrics")):
        common = () if route.path in OPEN_ROUTES else (401,)
        more = {"503": {"description": "Unavailable."}}
    statuses = sorted({*common, *route.fails})
    return {str(status): {"description": _slugs(status), "content": content} for status in statuses} | more


def _slugs(status: int) -> str:
    slugs = dict.fromkeys(slug for _, code, slug in TABLE if code == status)
    return ", ".join(slugs) or "See the problem's title."


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)\}", route.path)
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]


def _named(where: str, names: Iterable[str]) -> list[dict[str, Any]]:
    told = _QUERY if where == "query" else _HEADERS
    return [
        {"name": name, "in": where, "schema": {"type": told[name][0]}, "description": told[name][1]} for name in names
    ]
