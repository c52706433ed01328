"""The reference is whole and true: every call is in it, and answers are of the shapes it tells. Health and pages."""

import re
from typing import Any

import pytest
from api import Api, at, creds, fresh, serve

from service.http.keys import OPEN_ROUTES
from service.http.routes import API

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}
KINDS: dict[str, type] = {
    "object": dict,
    "array": list,
    "string": str,
    "integer": int,
    "number": float,
    "boolean": bool,
    "null": type(None),
}


@pytest.fixture
async def reference(api: Api) -> Any:
    return await api.good("GET", "/openapi.json")


def resolve(reference: Any, schema: Any) -> Any:
    """A schema without its reference."""
    while "$ref" in schema:
        path = schema["$ref"]
        assert path.startswith("#/")
        found = reference
        for name in path[2:].split("/"):
            found = found[name.replace("~1", "/").replace("~0", "~")]
        schema = found
    return schema


def is_of(reference: Any, schema: Any, value: Any) -> bool:
    """Whether a value is of a schema, by the words of JSON Schema that the reference uses; others are an error."""
    schema = resolve(reference, schema)
    known = {"title", "description", "type", "properties", "required", "items", "anyOf", "additionalProperties", "enum"}
    known |= {"format", "minimum", "maximum", "minLength", "maxLength", "maxItems", "default", "propertyNames"}
    assert set(schema) <= known, set(schema) - known
    if "anyOf" in schema:
        return any(is_of(reference, each, value) for each in schema["anyOf"])
    kind = schema.get("type")
    if kind is not None:
        kinds = {KINDS[each] for each in ([kind] if isinstance(kind, str) else kind)}
        if type(value) not in kinds | ({int} if float in kinds else set()):
            return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    if isinstance(value, dict):
        properties, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
        return set(schema.get("required", [])) <= set(value) and all(
            is_of(reference, properties[name], member)
            if name in properties
            else (rest is True or (isinstance(rest, dict) and is_of(reference, rest, member)))
            for name, member in value.items()
        )
    if isinstance(value, list):
        return all(is_of(reference, schema.get("items", {}), each) for each in value)
    return True


def schemas_in(value: Any) -> list[Any]:
    """Every object with a reference or a type in it."""
    found = [value] if isinstance(value, dict) and ("$ref" in value or "type" in value) else []
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return found + [schema for each in inner for schema in schemas_in(each)]


async def test_it_is_openapi_3_1(reference: Any):
    assert re.fullmatch(r"3\.1\.\d+", reference["openapi"])
    assert {"title", "version"} <= set(reference["info"])
    assert set(reference) <= {"openapi", "info", "servers", "paths", "components", "security", "tags", "externalDocs"}
    ids = []
    for path, item in reference["paths"].items():
        assert path.startswith("/")
        assert set(item) <= METHODS | {"parameters", "summary", "description"}
        for method in METHODS & set(item):
            operation = item[method]
            ids.append(operation["operationId"])
            assert operation["summary"]
            named = {(each["name"], each["in"]) for each in operation.get("parameters", [])}
            assert len(named) == len(operation.get("parameters", []))
            assert {name for name, where in named if where == "path"} == set(re.findall(r"\{(\w+)\}", path))
            for each in operation.get("parameters", []):
                assert each["in"] in {"path", "query", "header"}
                assert each["schema"]["type"] in KINDS
                must = each["in"] == "path" or operation["operationId"] == "release_lease"
                assert each.get("required", False) is must
            assert operation["responses"]
            for status, response in operation["responses"].items():
                assert re.fullmatch(r"[1-5]\d\d", status)
                assert response["description"]
                assert all(set(media) <= {"schema", "example"} for media in response.get("content", {}).values())
            if "requestBody" in operation:
                assert set(operation["requestBody"]["content"]) == {"application/json"}
    assert len(ids) == len(set(ids))
    assert reference["components"]["securitySchemes"]["token"] == {"type": "http", "scheme": "bearer"}


async def test_every_reference_leads_somewhere_and_every_type_is_one(reference: Any):
    found = schemas_in({"paths": reference["paths"], "schemas": reference["components"]["schemas"]})
    assert len(found) > 100
    for schema in found:
        resolved = resolve(reference, schema)
        if isinstance(resolved.get("type"), str) and "in" not in resolved:
            assert resolved["type"] in {*KINDS, "http"}
        if "properties" in resolved and isinstance(resolved.get("required", []), list):
            assert set(resolved.get("required", [])) <= set(resolved["properties"])


async def test_it_covers_every_route(api: Api, reference: Any):
    told = {(method.upper(), path) for path, item in reference["paths"].items() for method in METHODS & set(item)}
    assert told == {(route.method, route.path) for route in API}
    served = {
        (route.method, route.resource.canonical)
        for route in api.client.app.router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    pages = {("GET", path) for path in ("/", "/docs", "/docs.css", "/console.js", "/openapi.json")}
    assert served == told | pages
    for path, item in reference["paths"].items():
        for method in METHODS & set(item):
            assert (item[method].get("security") == []) == (path in OPEN_ROUTES)


async def test_answers_are_of_the_shapes_it_tells(api: Api, reference: Any):
    session, key = fresh(), {"session": ["a"]}
    commit = {"creds": creds(), "keys": {"session": {"a": {"x": [1, None]}}}}
    calls: list[tuple[str, str, Any]] = [
        ("POST", "/v1/sessions/{session}/lease", {"holder": "h", "ttl_s": 60.5}),
        ("POST", "/v1/commits", {"commits": [{"session": session, "lease_epoch": 1, **commit}, {"session": session}]}),
        ("GET", "/v1/sessions", None),
        ("GET", "/v1/sessions/{session}", None),
        ("GET", "/v1/sessions/{session}/creds", None),
        ("POST", "/v1/sessions/{session}/keys/get", key),
        ("GET", "/v1/sessions/{session}/keys/{type}", None),
        ("GET", "/v1/sessions/{session}/state", None),
        ("GET", "/v1/sessions/{session}/integrity", None),
        ("POST", "/v1/sessions/{session}/commit", commit),
        ("PUT", "/v1/sessions/{session}/state", {"version": 7, **commit}),
        ("DELETE", "/v1/sessions/{session}/lease", None),
        ("DELETE", "/v1/sessions/{session}", None),
        ("POST", "/v1/sessions/{session}/restore", None),
    ]
    assert {(method, path) for method, path, _ in calls} == {
        (route.method, route.path) for route in API if route.path.startswith("/v1")
    }
    for method, path, body in calls:
        operation = reference["paths"][path][method.lower()]
        if body is not None:
            assert is_of(reference, operation["requestBody"]["content"]["application/json"]["schema"], body), path
        headers = {"Lease-Epoch": "1"} if any(each["name"] == "Lease-Epoch" for each in operation["parameters"]) else {}
        if (path.endswith("/lease") and method == "POST") or path.endswith("}"):
            headers = {}
        url = path.replace("{session}", session).replace("{type}", "session")
        answer = await api.ask(method, url, body, headers=headers)
        told = operation["responses"][str(answer.status)]
        assert answer.status in {200, 204}, (path, answer.text)
        if "content" in told:
            assert is_of(reference, told["content"]["application/json"]["schema"], answer.json), (path, answer.json)
        else:
            assert answer.text == b""


async def test_problems_are_of_the_shape_it_tells(api: Api, reference: Any):
    session = fresh()
    await api.lease(session, "one")
    for method, call, body in (
        ("GET", "creds", None),
        ("POST", "commit", {"keys": 1}),
        ("POST", "commit", {}),
        ("POST", "lease", {"holder": "two", "ttl_s": 5}),
        ("POST", "keys/get", {"": []}),
    ):
        answer = await api.ask(method, at(session, call), body)
        path = f"/v1/sessions/{{session}}/{call}"
        told = reference["paths"][path][method.lower()]["responses"][str(answer.status)]
        assert is_of(reference, told["content"]["application/problem+json"]["schema"], answer.json)


async def test_the_pages_need_no_token_and_no_other_host(api: Api):
    for path in sorted(OPEN_ROUTES):
        answer = await api.of(None).ask("GET", path)
        assert answer.status == 200
        assert re.search(rb"""(src|href)=["']?(https?:)?//""", answer.text) is None
        if answer.headers["Content-Type"].startswith("text/html"):
            assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    docs = (await api.of(None).ask("GET", "/docs")).text.decode()
    assert all(route.path.replace("{", "").replace("}", "") in re.sub(r"<[^>]*>|[{}]", "", docs) for route in API)


# -- health ------------------------------------------------------------------------------------------------------------


async def test_health_answers_without_a_token_and_without_secrets(own_api: Api):
    api = own_api
    session = fresh("needle")
    await api.commit(session, {"creds": creds(), "keys": {"session": {"needle": "needle"}}})
    anyone = api.of(None)
    assert await anyone.good("GET", "/health/live") == {"status": "ok"}
    assert await anyone.good("GET", "/health/ready") == await anyone.good("GET", "/health") == {"status": "ok"}
    database = await anyone.good("GET", "/health/database")
    assert (database["status"], database["role"], database["writable"], database["fsync"]) == (
        "ok",
        "primary",
        True,
        "on",
    )
    assert re.match(r"PostgreSQL 1[4-9]", database["backend"])
    assert database["latency_ms"] > 0
    assert set(database["pool"]) == {"busy", "idle", "waiting"}
    metrics = await api.ask("GET", "/metrics")
    assert metrics.headers["Content-Type"].startswith("text/plain")
    whatsapp = await api.ask("GET", "/health/whatsapp")
    for text in (str(database).encode(), metrics.text, whatsapp.text):
        assert b"needle" not in text
        assert str(api.token).encode() not in text


async def test_metrics_are_the_operators(api: Api):
    path = "/metrics"
    for tenant, scope, status in (
        ("default", "read", 200),
        ("other", "admin", 200),
        ("other", "write", 403),
        ("other", "read", 403),
    ):
        answer = await (await api.tenant(tenant, scope)).ask("GET", path)
        assert answer.status == status, (tenant, scope)
        assert status == 200 or answer.slug == "forbidden"
    assert (await api.of(None).ask("GET", path)).status == 401
    described = (await api.good("GET", "/openapi.json"))["paths"]
    assert set(described[path]["get"]["responses"]) == {"200", "401", "403", "500", "503"}
    assert set(described["/health/whatsapp"]["get"]["responses"]) == {"200", "401", "500", "503"}
    assert set(described["/health"]["get"]["responses"]) == {"200", "503"}
    assert set(described["/health/live"]["get"]["responses"]) == {"200"}


async def test_health_answers_are_of_the_shapes_the_reference_tells(api: Api, reference: Any):
    await api.commit(fresh(), {"keys": {"session": {"a": 1}}})
    async with serve(api.url, stopping=lambda: True) as stopping:
        for path in ("/health", "/health/live", "/health/ready", "/health/database", "/health/whatsapp"):
            described = reference["paths"][path]["get"]["responses"]
            for served in (api, stopping):
                answer = await served.ask("GET", path)
                schema = described[str(answer.status)]["content"]["application/json"]["schema"]
                assert is_of(reference, schema, answer.json), (path, answer.json)
                assert set(answer.json) == set(resolve(reference, schema)["properties"]), path
    schema = reference["paths"]["/health/database"]["get"]["responses"]["503"]["content"]["application/json"]["schema"]
    api.store.is_open = False
    assert is_of(reference, schema, (await api.ask("GET", "/health/database")).json)


async def test_health_has_no_side_effects(api: Api):
    async with api.unchanged():
        for path in ("/health", "/health/live", "/health/ready", "/health/database", "/health/whatsapp", "/metrics"):
            for _ in range(3):
                assert (await api.ask("GET", path)).status == 200


async def test_a_stopping_service_is_not_ready_but_answers(shared_url: str):
    async with serve(shared_url, stopping=lambda: True) as api:
        answer = await api.ask("GET", "/health/ready")
        assert (answer.status, answer.json["status"]) == (503, "unavailable")
        assert (await api.ask("GET", "/health/live")).status == 200
        await api.commit(fresh(), {})


async def test_metrics_count_requests_by_route_never_by_name(api: Api):
    session = fresh()
    await api.commit(session, {"keys": {"t": {"needle": 1}}})
    await api.ask("GET", at(session, "keys/needle"))
    await api.ask("GET", "/needle")
    text = (await api.ask("GET", "/metrics")).text.decode()
    assert session not in text
    assert "needle" not in text
    assert "/v1/sessions/{session}/commit" in text
    assert re.search(r"^authstore_\w+", text, re.MULTILINE)
    assert "authstore_statement_duration_seconds" not in text, "nothing ever measured a statement"
