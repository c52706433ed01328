"""The reference (OpenAPI 3.1), generated from the URL table and the shapes of bodies."""

import inspect
import re
from collections.abc import Iterable
from http import HTTPStatus
from typing import Any, Final

import msgspec

from service.http import wire
from service.http.echo import ECHO, ECHO_IS
from service.http.examples import EXAMPLES
from service.http.keys import OPEN_ROUTES
from service.http.problems import KINDS
from service.http.routes import API, GROUPS, Route

_REF: Final = "#/components/schemas/{name}"
_PATH: Final = {
    "session": "1 to 128 of the characters `A-Z a-z 0-9 . _ : @ + -`; a name of your own.",
    "type": "A type of keys, as Baileys calls it.",
}
_HEADERS: Final = {
    "Lease-Epoch": (
        "integer",
        "The epoch of the lease it is written under. While a lease lives, nothing is written without.",
    ),
    "If-Match": ("string", 'The version it was made for, as `"<version>"`.'),
    "Idempotency-Key": ("string", "A UUID; a commit sent twice applies once, while it is among the last sixteen."),
}
_EPOCH: Final = {"Lease-Epoch": ("integer", "Only while this is the epoch of the lease.")}
_QUERY: Final = {
    "prefix": ("string", "Only names that begin with this."),
    "cursor": ("string", "`next` of the page before."),
    "limit": ("integer", "1 to 1000, 100 unless told."),
    "values": ("boolean", "With the values, false unless told."),
    "purge": ("boolean", "Destroy now, leave nothing to restore; false unless told."),
}
_ABOUT: Final = (
    "The auth state of WhatsApp sessions: sealed, atomic, fenced. The scopes named under `security` are what a token needs at "
    "least: `read` sees, `write` also changes, `admin` also reads the metrics whatever its tenant. `x-problems` are the kinds "
    "of problems that a call answers with, and what each means. "
    f"Any request may carry `{ECHO}`: {ECHO_IS}"
)


def document(version: str) -> dict[str, Any]:
    """The whole reference as JSON."""
    shapes = [shape for route in API for shape in (route.body, route.answer, route.down) if shape is not None]
    schemas, components = msgspec.json.schema_components([*shapes, wire.Problem], ref_template=_REF)
    by_shape = {id(shape): schema for shape, schema in zip([*shapes, wire.Problem], schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for group, routes in GROUPS.items():
        for route in routes:
            paths.setdefault(route.path, {})[route.method.lower()] = {"tags": [group], **_operation(route, by_shape)}
    for schema in components.values():
        if "description" in schema:
            schema["description"] = inspect.cleandoc(schema["description"])
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "baileys-auth-store",
            "version": version,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "security": [{"token": []}],
        "tags": [{"name": group} for group in GROUPS],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }


def problems_of(route: Route) -> list[str]:
    """The kinds of problems that a call can answer with, by status."""
    kinds = {*route.fails}
    if route.path not in OPEN_ROUTES:
        kinds |= {"unauthorized", "internal", "unavailable"}
    if route.scope != "read":
        kinds.add("forbidden")
    if route.path.startswith("/v1/"):
        kinds.add("bad-input")
    if route.headers or route.body is not None:
        kinds.add("bad-body")
    if route.body is not None:
        kinds |= {"too-large", "unsupported-media-type"}
    return [kind for kind in KINDS if kind in kinds]


def _operation(route: Route, schemas: dict[int, Any]) -> dict[str, Any]:
    name = route.handler.__name__ if route.path != "/health" else "health"
    headers = _named("header", route.headers, _HEADERS if "If-Match" in route.headers else _EPOCH, route.must)
    operation: dict[str, Any] = {
        "operationId": name,
        "summary": route.does,
        "parameters": [*_path_parameters(route), *_named("query", route.query, _QUERY), *headers],
        "responses": {**_answers(route, schemas, name), **_problems(route, schemas)},
        "security": [] if route.path in OPEN_ROUTES else [{"token": [route.scope]}],
    }
    if route.body is not None:
        content = _content(schemas[id(route.body)], EXAMPLES[name].body if name in EXAMPLES else None)
        operation["requestBody"] = {"required": True, "content": {"application/json": content}}
    return operation


def _answers(route: Route, schemas: dict[int, Any], name: str) -> dict[str, Any]:
    done: dict[str, Any] = {"description": "Done."}
    if route.answer is not None:
        example = EXAMPLES[name].answer if name in EXAMPLES else None
        done["content"] = {"application/json": _content(schemas[id(route.answer)], example)}
    elif route.status == HTTPStatus.OK:
        done["content"] = {"text/plain": _content({"type": "string"})}
    answers = {str(route.status): done}
    if route.down is not None:
        content = {"application/json": _content(schemas[id(route.down)])}
        answers["503"] = {"description": "Unavailable.", "content": content}
    return answers


def _content(schema: Any, example: Any = None) -> dict[str, Any]:
    return {"schema": schema} if example is None else {"schema": schema, "example": example}


def _problems(route: Route, schemas: dict[int, Any]) -> dict[str, Any]:
    content = {"application/problem+json": _content(schemas[id(wire.Problem)])}
    by_status: dict[int, dict[str, str]] = {}
    for kind in problems_of(route):
        status, means = KINDS[kind]
        by_status.setdefault(status, {})[kind] = means
    return {
        str(status): {
            "description": " ".join(f"`{kind}`: {means}" for kind, means in kinds.items()),
            "content": content,
            "x-problems": kinds,
        }
        for status, kinds in by_status.items()
    }


def _path_parameters(route: Route) -> list[dict[str, Any]]:
    names = re.findall(r"\{(\w+)\}", route.path)
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}, "description": _PATH[name]}
        for name in names
    ]


def _named(where: str, names: Iterable[str], told: dict[str, tuple[str, str]], must: str = "") -> list[dict[str, Any]]:
    return [
        {"name": name, "in": where, "schema": {"type": told[name][0]}, "description": told[name][1]}
        | ({"required": True} if name == must else {})
        for name in names
    ]
