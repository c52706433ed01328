"""The one table of error -> status. An error nobody foresaw says nothing but its request id."""

from http import HTTPStatus
from typing import Final

from aiohttp import web
from msgspec import UNSET

from protocol.errors import BadName
from service import errors
from service.http.raw_json import BadBody, BadMedia, encode
from service.http.wire import Problem

TYPE_PREFIX: Final = "urn:authstore:problem:"

# The first class an error is an instance of counts.
TABLE: Final[tuple[tuple[type[Exception], int, str], ...]] = (
    (BadBody, 400, "bad-body"),
    (errors.Unauthorized, 401, "unauthorized"),
    (errors.Forbidden, 403, "forbidden"),
    (errors.NoCreds, 404, "no-creds"),
    (errors.NoSession, 404, "no-session"),
    (errors.Fenced, 409, "fenced"),
    (errors.IdentityReplaced, 409, "identity-replaced"),
    (errors.CounterRegressed, 409, "counter-regressed"),
    (errors.PreKeyOverwritten, 409, "pre-key-overwritten"),
    (errors.Deleted, 410, "deleted"),
    (errors.OutcomeUnknown, 412, "outcome-unknown"),
    (errors.VersionMismatch, 412, "version-mismatch"),
    (BadMedia, 415, "unsupported-media-type"),
    (errors.KeyReused, 422, "idempotency-key-reused"),
    (errors.BadInput, 422, "bad-input"),
    (BadName, 422, "bad-input"),
    (errors.LeaseHeld, 423, "leased"),
    (errors.Corrupt, 500, "corrupt"),
    (errors.Unavailable, 503, "unavailable"),
    (errors.WrongMasterKey, 503, "unavailable"),
    (errors.NotYet, 501, "not-implemented"),
)

_OF_STATUS: Final = {
    400: "bad-request",
    404: "not-found",
    405: "method-not-allowed",
    413: "too-large",
    415: "unsupported-media-type",
    417: "expectation-failed",
    431: "headers-too-large",
}

_SAID: Final = {
    "bad-body": "The body is not JSON of this shape, or a header is not of its form.",
    "bad-input": "A name, a value or a number of them is outside its bounds.",
    "too-large": "The body is larger than `AUTHSTORE_MAX_BODY_MB`, 64 unless set.",
    "internal": "A fault of the service. Its log says more under the `request_id`.",
    "bad-request": "This is not HTTP, or its head is too long.",
    "not-found": "There is no such path.",
    "method-not-allowed": "The path has other methods: see `Allow`.",
    "expectation-failed": "`Expect` is `100-continue`, or is not there.",
    "headers-too-large": "The headers are too large.",
}
_OF_CLASSES: Final = {slug: (status, (kind.__doc__ or "").splitlines()[0]) for kind, status, slug in reversed(TABLE)}
_OF_NONE: Final = {slug: (status, "") for status, slug in _OF_STATUS.items()} | {"internal": (500, "")}

KINDS: Final[dict[str, tuple[int, str]]] = {
    slug: (status, _SAID.get(slug, means))
    for slug, (status, means) in sorted((_OF_NONE | _OF_CLASSES).items(), key=lambda each: (each[1][0], each[0]))
}
"""Every kind of problem by its slug: ``(status, what it means)``, by status. For the reference."""


def problem_of(error: Exception, request_id: str | None = None) -> Problem:
    """What may be said of an error."""
    for kind, status, slug in TABLE:
        if isinstance(error, kind):
            return _told(error, status, slug)
    if isinstance(error, web.HTTPException) and error.status in _OF_STATUS:
        return Problem(TYPE_PREFIX + _OF_STATUS[error.status], _title(_OF_STATUS[error.status]), error.status)
    return Problem(TYPE_PREFIX + "internal", "Internal error", 500, request_id=request_id or UNSET)


def response_of(problem: Problem, error: Exception) -> web.Response:
    """The answer that carries a problem."""
    response = web.Response(body=encode(problem), status=problem.status, content_type="application/problem+json")
    if problem.status == HTTPStatus.SERVICE_UNAVAILABLE:
        response.headers["Retry-After"] = str(errors.Unavailable.retry_after_s)
    elif isinstance(error, errors.Unauthorized):
        response.headers["WWW-Authenticate"] = "Bearer"
    elif isinstance(error, web.HTTPMethodNotAllowed):
        response.headers["Allow"] = ", ".join(sorted(error.allowed_methods))
    return response


def _told(error: Exception, status: int, slug: str) -> Problem:
    detail = error.detail if isinstance(error, errors.ServiceError) else str(error)
    problem = Problem(TYPE_PREFIX + slug, _title(slug), status, detail)
    if isinstance(error, errors.ServiceError) and error.pointer is not None:
        problem.pointer = error.pointer
    if isinstance(error, errors.LeaseHeld):
        problem.holder, problem.expires_at, problem.epoch = error.holder, error.expires_at, error.epoch
    if isinstance(error, errors.Corrupt) and error.row is not None:
        problem.row = error.row
    return problem


def _title(slug: str) -> str:
    return slug.replace("-", " ").capitalize()
