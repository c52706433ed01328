"""`/docs` is whole by itself: who has only this page can make every call."""

import asyncio
import html
import json
import os
import re
import shutil
from typing import Any

import pytest
from api import Api, fresh

from service.http.examples import EXAMPLES, PROBLEM
from service.http.keys import OPEN_ROUTES
from service.http.openapi import problems_of
from service.http.router import PAGES
from service.http.routes import API, GROUPS, Route
from service.http.schema_text import Member, Shapes

ENOUGH_SCOPE = {"read": ("read", "write", "admin"), "write": ("write", "admin")}


@pytest.fixture
async def page(api: Api) -> str:
    return (await api.of(None).ask("GET", "/docs")).text.decode()


def plain(text: str) -> str:
    """What is read of it."""
    return " ".join(html.unescape(re.sub(r"<[^>]*>", "", text)).split())


def sections(page: str) -> dict[str, str]:
    """The section of each call, by its id."""
    return dict(re.findall(r'<section id="(\w+)">(.*?)</section>', page, re.DOTALL))


def section_of(page: str, route: Route) -> str:
    return sections(page)["health" if route.path == "/health" else route.handler.__name__]


def terms(section: str, title: str) -> dict[str, tuple[str, str]]:
    """``name -> (type and what else is said of it, description)`` of the list under a heading."""
    under = re.search(rf"<h4>{title}.*?</h4>(.*?)(<h4>|$)", section, re.DOTALL)
    found = re.findall(r"<dt><code>(.*?)</code> <small>(.*?)</small></dt><dd>(.*?)</dd>", under[1] if under else "")
    return {html.unescape(name): (html.unescape(kind), plain(about)) for name, kind, about in found}


async def test_every_call_is_there_with_its_scope(page: str):
    assert len(sections(page)) == len(API)
    for route in API:
        section = plain(section_of(page, route))
        scope = "no token" if route.path in OPEN_ROUTES else f"scope {route.scope}"
        assert section.startswith(f"{route.method} {route.path}{scope}"), route.path
    assert all(f"<h2>{group}</h2>" in page for group in GROUPS)


async def test_bodies_are_told_member_by_member(page: str):
    found = sections(page)
    assert (
        terms(found["take_lease"], "Body").items()
        >= {
            "holder": ("string, 1 to 200 characters, needed", ""),
            "ttl_s": ("number, 1 to 3,600, needed", ""),
            "takeover": ("boolean, optional, false unless told", ""),
        }.items()
    )
    commit, many = terms(found["commit"], "Body"), terms(found["commit_many"], "Body")
    assert list(commit) == ["creds", "keys", "reset", "force"]
    assert commit["keys"] == (
        "{type: {id: any JSON}}, optional",
        "100,000 keys at most; a value of null deletes the key",
    )
    assert commit["reset"][0] == commit["force"][0] == "boolean, optional, false unless told"
    assert commit["reset"][1]
    assert commit["force"][1]
    assert many["commits"][0] == "[object, …], 4,096 at most, needed"
    assert many["commits[].session"][0] == "string, needed"
    assert many["commits[].lease_epoch"][0] == "integer or null, 0 or more, optional"
    assert many["commits[].idempotency_key"][0] == "UUID or null, optional"
    assert {f"commits[].{name}" for name in commit} < set(many)
    assert {"creds", "keys", "force", "version"} < set(terms(found["put_state"], "Body"))
    assert "{type: [id, …]}: 50,000 ids at most" in plain(found["get_keys"])
    for route in API:
        said = (getattr(route.body, "__doc__", None) or "") if isinstance(route.body, type) else ""
        assert plain(said.replace("`", "").split("\n")[0]) in plain(section_of(page, route)), route.path


async def test_answers_are_told_member_by_member(page: str):
    found = sections(page)
    assert terms(found["take_lease"], "Answer")["expires_at"][0] == "time"
    listed = terms(found["list_sessions"], "Answer")
    assert listed["next"][0] == "string or null"
    assert listed["sessions[].lease"][0] == "object or null"
    assert listed["sessions[].lease.holder"][0] == "string"
    assert listed["sessions[].keys"][0] == "{type: object}"
    assert listed["sessions[].keys.{type}.bytes"][0] == "integer"
    assert terms(found["check_integrity"], "Answer")["findings[].severity"][0] == '"error" or "warning"'
    assert terms(found["commit_many"], "Answer")["results[].problem"][0] == "problem, not always there"
    assert "Answer 204Done." in plain(found["release_lease"])
    assert "text/plain" in plain(found["metrics"])
    problem = terms(page[page.index('id="problems"') :].replace("<dl>", "<h4>Members</h4><dl>", 1), "Members")
    assert problem["type"][0] == "string"
    assert problem["detail"][0] == "string, not always there"
    assert plain(json.dumps(PROBLEM)) in plain(page)


async def test_codes_are_told_with_what_they_mean(page: str):
    for route in API:
        problems = section_of(page, route).partition("<h4>Problems</h4>")[2]
        assert set(re.findall(r'href="#([\w-]+)"', problems)) == set(problems_of(route)), route.path
    told = dict(re.findall(r'<div id="([\w-]+)"><dt>.*?</dt><dd>(.*?)</dd>', page))
    assert set(told) >= {kind for route in API for kind in problems_of(route)} | {"not-found"}
    assert all(told.values())


async def test_nothing_stays_raw_and_every_link_leads_somewhere(page: str):
    assert "`" not in page
    assert "<!--" not in page
    assert "See the problem" not in page
    ids = re.findall(r' id="([^"]*)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'href="#([^"]*)"', page)) <= set(ids)
    assert len(page) < 80_000


async def test_it_says_exactly_what_needs_no_token(api: Api, page: str):
    sentence = re.search(r"except these: (.*?)\. So", page, re.DOTALL)
    assert sentence
    open_paths = set(re.findall(r"<code>(.*?)</code>", sentence[1]))
    anyone = api.of(None)
    for path in {path for path, _ in PAGES} | {route.path for route in API if route.method == "GET"}:
        answer = await anyone.ask("GET", path.replace("{session}", "s").replace("{type}", "t"))
        assert (answer.status == 401) == (path not in open_paths), path


async def test_the_scope_it_says_is_enough_and_needed(api: Api):
    tokens = {scope: await api.tenant("default", scope) for scope in ("read", "write", "admin")}
    for route in API:
        url = route.path.replace("{session}", fresh()).replace("{type}", "session")
        for scope, asked in tokens.items():
            answer = await asked.ask(route.method, url, {} if route.body else None, headers={"Lease-Epoch": "1"})
            assert (answer.status == 403) == (scope not in ENOUGH_SCOPE[route.scope]), (route.path, scope)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
async def test_its_examples_run_as_they_stand(own_api: Api, page: str):
    """One after the other, on a new store, by a shell: what comes back is the answer that is shown."""
    environment = {**os.environ, "URL": str(own_api.client.make_url("")).rstrip("/"), "TOKEN": str(own_api.token)}
    found = [(name, section) for name, section in sections(page).items() if name in EXAMPLES]
    assert len(found) == len(EXAMPLES)
    for name, section in found:
        line = re.search(r"<pre>(.*?)</pre>", section, re.DOTALL)
        assert line
        shell = await asyncio.create_subprocess_shell(
            html.unescape(line[1]), env=environment, stdout=asyncio.subprocess.PIPE, executable="/bin/bash"
        )
        text, _ = await shell.communicate()
        shown = re.search(r"<pre class=answer>(.*?)</pre>", section, re.DOTALL)
        assert without_times(json.loads(text or b"null")) == without_times(
            json.loads(html.unescape(shown[1]) if shown else "null")
        ), name


def without_times(answer: Any) -> Any:
    return {key: key if key == "expires_at" else value for key, value in answer.items()} if answer else answer


def test_a_shape_nobody_has_seen_is_told_too():
    shape = {
        "description": "What it is.",
        "properties": {
            "epoch": {"type": "integer", "minimum": 1},
            "inner": {"anyOf": [{"$ref": "#/components/schemas/In"}, {"type": "null"}]},
        },
        "required": ["epoch"],
    }
    inner = {"description": "Within.", "properties": {"names": {"items": {"type": "string"}, "maxItems": 3}}}
    shapes = Shapes({"Out": shape, "In": inner})
    out = {"$ref": "#/components/schemas/Out"}
    assert shapes.about(out) == "What it is."
    assert list(shapes.members(out)) == [
        Member("epoch", "integer", "1 or more", True, "", ""),
        Member("inner", "object or null", "", False, "", "Within."),
        Member("inner.names", "[string, …]", "3 at most", False, "", ""),
    ]
