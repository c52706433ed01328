"""Whether an answer is one that the reference tells of its call. Every test that asks through `Api.ask` is a test of this."""

import json
import re
from functools import cache
from typing import Any

from service.http.openapi import document
from service.http.problems import TYPE_PREFIX

ANYWHERE = {"bad-request", "not-found", "method-not-allowed", "expectation-failed"}
"""What any request may be answered with, before it is a call."""


@cache
def _paths() -> list[tuple[re.Pattern[str], str, dict[str, Any]]]:
    paths = document("0")["paths"].items()
    return [(re.compile(re.sub(r"\\{\w+\\}", "[^/]+", re.escape(path))), path, item) for path, item in paths]


def told(method: str, url: str) -> tuple[str, dict[str, Any]] | None:
    """``(path, responses)`` of a call; None when it is none."""
    found = [(path, item) for pattern, path, item in _paths() if pattern.fullmatch(url.partition("?")[0])]
    for path, item in found:
        if method.lower() in item:
            return path, item[method.lower()]["responses"]
    return None


def kind_of(text: bytes) -> str:
    """The kind of a problem."""
    return str(json.loads(text)["type"].removeprefix(TYPE_PREFIX))


def assert_told(method: str, url: str, status: int, media: str, text: bytes) -> None:
    """The status is listed for this call, and where it is a problem its kind is too."""
    call = told(method, url)
    if call is None:
        return
    path, responses = call
    kind = kind_of(text) if media.startswith("application/problem+json") else None
    if kind in ANYWHERE:
        return
    assert str(status) in responses, f"{method} {path} answers {status} {kind}"
    if kind is not None:
        assert kind in responses[str(status)]["x-problems"], f"{method} {path} answers {status} {kind}"
