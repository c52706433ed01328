"""The reference as a page: what `openapi.py` tells, readable offline and without a script."""

import html
import json
import re
import shlex
from collections.abc import Iterable, Iterator
from typing import Any, Final

from service.http.examples import EXAMPLES, PROBLEM, SESSION
from service.http.keys import OPEN_ROUTES
from service.http.problems import KINDS
from service.http.schema_text import Member, Shapes

_ANYWHERE: Final = ("bad-request", "not-found", "method-not-allowed", "expectation-failed")
_CODE: Final = re.compile(r"(`+)(.+?)\1")


def page(template: str, document: dict[str, Any]) -> str:
    """The template with a reference in it."""
    writer = _Writer(document)
    told = {
        "version": html.escape(document["info"]["version"]),
        "open": ", ".join(f"<code>{path}</code>" for path in sorted(OPEN_ROUTES)),
        "contents": "".join(writer.contents()),
        "calls": "".join(writer.calls()),
        "problem": writer.shape({"$ref": "#/components/schemas/Problem"}),
        "example": _block(json.dumps(PROBLEM)),
        "kinds": "".join(writer.kinds()),
    }
    return re.sub(r"<!-- (\w+) -->", lambda found: told[found[1]], template)


class _Writer:
    def __init__(self, document: dict[str, Any]) -> None:
        self._shapes = Shapes(document["components"]["schemas"])
        self._groups: dict[str, list[tuple[str, str, Any]]] = {tag["name"]: [] for tag in document["tags"]}
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                self._groups[operation["tags"][0]].append((method.upper(), path, operation))

    def contents(self) -> Iterator[str]:
        for group, calls in self._groups.items():
            links = "".join(
                f'<li><a href="#{operation["operationId"]}"><b>{method}</b> {_path(path)}</a></li>'
                for method, path, operation in calls
            )
            yield f"<div><h2>{group}</h2><ul>{links}</ul></div>"

    def calls(self) -> Iterator[str]:
        for group, calls in self._groups.items():
            yield f"<h2>{group}</h2>"
            for method, path, operation in calls:
                yield from self._call(method, path, operation)

    def kinds(self) -> Iterator[str]:
        """What every kind of problem means that a call, or no call, can answer with."""
        answers = [
            answer for calls in self._groups.values() for _, _, each in calls for answer in each["responses"].values()
        ]
        told = {*_ANYWHERE, *(kind for answer in answers for kind in answer.get("x-problems", ()))}
        for kind, (status, means) in KINDS.items():
            if kind in told:
                yield f'<div id="{kind}"><dt>{status} <code>{kind}</code></dt><dd>{_prose(means)}</dd></div>'

    def shape(self, schema: Any, *, sent: bool = False) -> str:
        """An object's members, or the type of what is none; ``sent``: by the caller."""
        about = self._shapes.about(schema)
        members = "".join(_member(each, sent=sent) for each in self._shapes.members(schema))
        if members:
            return (f"<p>{_prose(about)}</p>" if about else "") + f"<dl>{members}</dl>"
        return f"<p><code>{html.escape(self._shapes.kind(schema))}</code>{': ' if about else ''}{_prose(about)}</p>"

    def _call(self, method: str, path: str, operation: dict[str, Any]) -> Iterator[str]:
        name = operation["operationId"]
        yield f'<section id="{name}"><h3><a href="#{name}"><b>{method}</b> <code>{_path(path)}</code></a>'
        yield f"<span>{_scope(operation)}</span></h3><p>{_prose(operation['summary'])}</p>"
        if name in EXAMPLES:
            yield _block(_curl(method, path, name))
            if EXAMPLES[name].answer is not None:
                yield _block(json.dumps(EXAMPLES[name].answer), "answer")
        if operation["parameters"]:
            yield f"<h4>Parameters</h4><dl>{''.join(map(_parameter, operation['parameters']))}</dl>"
        if "requestBody" in operation:
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            yield "<h4>Body</h4>" + self.shape(schema, sent=True)
        for status, answer in operation["responses"].items():
            if "x-problems" not in answer:
                yield f"<h4>Answer <code>{status}</code></h4>{self._answer(answer)}"
        yield from _problems(operation["responses"])
        yield "</section>"

    def _answer(self, answer: dict[str, Any]) -> str:
        for media, content in answer.get("content", {}).items():
            return self.shape(content["schema"]) if media == "application/json" else f"<p><code>{media}</code></p>"
        return f"<p>{html.escape(answer['description'])}</p>"


def _scope(operation: dict[str, Any]) -> str:
    return f"scope <code>{operation['security'][0]['token'][0]}</code>" if operation["security"] else "no token"


def _curl(method: str, path: str, name: str) -> str:
    example = EXAMPLES[name]
    parts = ["curl -s"]
    if method != ("GET" if example.body is None else "POST"):
        parts.append(f"-X {method}")
    parts.append('-H "Authorization: Bearer $TOKEN"')
    headers = ({} if example.body is None else {"Content-Type": "application/json"}) | example.headers
    parts += [f"-H {shlex.quote(f'{header}: {value}')}" for header, value in headers.items()]
    line = " ".join(parts) + (f" \\\n  -d {shlex.quote(json.dumps(example.body))}" if example.body is not None else "")
    return f'{line} \\\n  "$URL{path.replace("{session}", SESSION)}"'


def _parameter(parameter: dict[str, Any]) -> str:
    needed = "needed" if parameter.get("required") else "optional"
    kind = f"{parameter['schema']['type']}, in the {parameter['in']}, {needed}"
    return _term(parameter["name"], kind, parameter.get("description", ""))


def _member(member: Member, *, sent: bool) -> str:
    there = ("needed" if sent else "") if member.needed else ("optional" if sent else "not always there")
    default = f"{member.default} unless told" if member.default else ""
    return _term(member.name, ", ".join(filter(None, [member.kind, member.bounds, there, default])), member.about)


def _term(name: str, kind: str, about: str) -> str:
    return f"<div><dt><code>{html.escape(name)}</code> <small>{html.escape(kind)}</small></dt><dd>{_prose(about)}</dd></div>"


def _problems(responses: dict[str, Any]) -> Iterator[str]:
    told = {status: answer["x-problems"] for status, answer in responses.items() if "x-problems" in answer}
    if told:
        items = "".join(f"<li>{status} {_links(kinds)}</li>" for status, kinds in told.items())
        yield f'<h4>Problems</h4><ul class="problems">{items}</ul>'


def _links(kinds: Iterable[str]) -> str:
    return ", ".join(f'<a href="#{kind}">{kind}</a>' for kind in kinds)


def _path(path: str) -> str:
    """May be broken at its slashes."""
    return html.escape(path).replace("/", "<wbr>/").removeprefix("<wbr>")


def _block(text: str, kind: str = "") -> str:
    return f"<pre{f' class={kind}' if kind else ''}>{html.escape(text, quote=False)}</pre>"


def _prose(text: str) -> str:
    """Text as docstrings have it: what stands between backticks, one or two, is code."""
    return _CODE.sub(lambda found: f"<code>{found[2]}</code>", html.escape(text, quote=False))
