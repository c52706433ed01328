"""Shapes of bodies, in and out, and of the headers that steer a commit. The reference is generated from these.

Values and creds are ``Raw``: JSON text that is passed on as it was sent.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from itertools import repeat
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType
from multidict import MultiMapping

from protocol.errors import BadName
from protocol.types import check_id, check_ids, check_session_name, check_type
from service.errors import BadInput
from service.http.raw_json import BadBody, Decoded, decode, is_object, quoted
from service.integrity import Report
from service.records import RECENT_KEPT, Hidden, Opened
from service.store.request import CommitRequest, Row
from service.store.sessions import Summary

T = TypeVar("T")
CREDS_MOST = 4 << 20
"""The longest creds. Real ones have 4 to 40 KB; whoever stores and checks them has to read them whole."""
IDS_MOST = 50_000
"""The most ids a get asks for."""
ROWS_MOST = 100_000
"""The most keys a commit, a state or a batch brings. The largest sessions have some 12,000; `authstore import` takes any."""

Json = Annotated[Raw, Meta(description="any JSON, kept as it was sent", extra_json_schema={})]
_CREDS = f"Baileys' creds, kept as they were sent; {CREDS_MOST >> 20} MiB at most"
Creds = Annotated[Raw, Meta(description=_CREDS, extra_json_schema={"type": "object"})]
CredsOrNull = Annotated[Raw, Meta(description=_CREDS, extra_json_schema={"type": ["object", "null"]})]
TypeName = Annotated[str, Meta(title="type")]
KeyId = Annotated[str, Meta(title="id")]
Keys = dict[TypeName, dict[KeyId, Json]]
Asked = Annotated[dict[TypeName, list[KeyId]], Meta(description=f"{IDS_MOST:,} ids at most")]
Count = Annotated[int, Meta(ge=0)]
Epoch = Annotated[int, Meta(ge=0, le=(1 << 63) - 1)]
Time = Annotated[datetime, Meta(tz=True)]

_ROW_BYTES = len('"a":1,')
_NULL = b"null"
_TOO_MANY = BadInput(
    f"a batch holds at most {RECENT_KEPT} commits of one session with keys: so many are remembered", pointer="/session"
)
_row = partial(tuple.__new__, Row)  # without the Python function that a named tuple has for it


class Quiet(Hidden, Struct):
    """A shape of a body that holds values, ids or names."""


class CommitBody(Quiet, forbid_unknown_fields=True):
    """A commit: all of it or nothing. What is left out stays as it is."""

    creds: Creds | UnsetType = UNSET
    keys: Annotated[Keys, Meta(description=f"{ROWS_MOST:,} keys at most; a value of null deletes the key")] = {}
    reset: Annotated[
        bool, Meta(description="with new creds: they replace the old ones, and all keys are wiped first")
    ] = False
    force: Annotated[
        bool,
        Meta(description="stores also what would be `identity-replaced`, `counter-regressed`, `pre-key-overwritten`"),
    ] = False


class BatchedCommit(CommitBody, forbid_unknown_fields=True, kw_only=True):
    """One commit among many; what a single one says in headers is said in members."""

    session: str
    lease_epoch: Annotated[Count | None, Meta(description="as `Lease-Epoch`")] = None
    if_match: Annotated[Count | None, Meta(description="as `If-Match`: a version")] = None
    idempotency_key: Annotated[UUID | None, Meta(description="as `Idempotency-Key`")] = None


class CommitsBody(Quiet, forbid_unknown_fields=True):
    """Commits of any sessions. Each stands alone; those of one session apply in order, at most sixteen of them with
    idempotency keys.
    """

    commits: Annotated[
        list[BatchedCommit], Meta(max_length=4096, description=f"{ROWS_MOST:,} keys at most in all of them together")
    ]


Ignored = Annotated[Any, Meta(description="ignored")]


class StateBody(Quiet, forbid_unknown_fields=True):
    """A whole session, in the shape that it is read in. Without creds, or with null, it has none afterwards."""

    creds: CredsOrNull | UnsetType = UNSET
    keys: Annotated[Keys, Meta(description=f"{ROWS_MOST:,} keys at most")] = {}
    session: Ignored = None
    version: Ignored = None
    epoch: Ignored = None
    force: Annotated[bool, Meta(description="stores also what would be `identity-replaced` or `counter-regressed`")] = (
        False
    )


class LeaseBody(Struct, forbid_unknown_fields=True):
    """Take or renew. The holder is unique to a process: it tells its lease from another's. ``takeover`` raises the epoch
    whoever holds the lease; with a Lease-Epoch only that of one's own lease of that epoch, or the answer is 409.
    ``takeover_epoch`` does so while the session's epoch is this one, which a 423 tells, and says nothing when it is another:
    asked twice it takes over once, and who came after that keeps the session.
    """

    holder: Annotated[str, Meta(min_length=1, max_length=200)]
    ttl_s: Annotated[float, Meta(ge=1, le=3600)]
    takeover: bool = False
    takeover_epoch: Epoch | None = None


class CommitAnswer(Struct):
    version: int
    epoch: int


class LeaseAnswer(Quiet):
    """Whose lease it is, so that nobody takes it for another session's."""

    session: str
    epoch: int
    expires_at: Time


class LeaseShown(Struct):
    holder: str
    expires_at: Time


class TypeCount(Struct):
    """``bytes``: as stored, sealed."""

    count: int
    bytes: int


class SummaryAnswer(Quiet):
    session: str
    version: int
    epoch: int
    lease: LeaseShown | None
    paired: bool
    keys: dict[TypeName, TypeCount]
    created_at: Time
    updated_at: Time


class ListAnswer(Struct):
    sessions: list[SummaryAnswer]
    next: str | None


class DeleteAnswer(Quiet):
    """``restorable_until`` null: gone for good."""

    session: str
    version: int
    rows: int
    restorable_until: Time | None


class Problem(Struct, omit_defaults=True):
    """RFC 9457. ``type`` is a stable slug URI. ``pointer``: where in the body; ``holder``, ``expires_at`` and ``epoch``: of
    the lease in the way, which ``takeover_epoch`` takes over; ``row``: the keyed hash of a row that is damaged;
    ``request_id``: by which the log tells what happened.
    """

    type: str
    title: str
    status: int
    detail: str | UnsetType = UNSET
    pointer: str | UnsetType = UNSET
    request_id: str | UnsetType = UNSET
    holder: str | UnsetType = UNSET
    expires_at: str | UnsetType = UNSET
    epoch: int | UnsetType = UNSET
    row: str | UnsetType = UNSET


class StateAnswer(Quiet):
    """A whole session in one snapshot. It names its session, so that nobody takes it for another's."""

    session: str
    version: int
    epoch: int
    creds: CredsOrNull
    keys: Keys


class KeysPage(Quiet, omit_defaults=True):
    """``ids``, or with values=true ``values``."""

    next: str | None
    ids: list[KeyId] | UnsetType = UNSET
    values: dict[KeyId, Json] | UnsetType = UNSET


class BatchedAnswer(Struct, omit_defaults=True):
    version: int | UnsetType = UNSET
    epoch: int | UnsetType = UNSET
    problem: Problem | UnsetType = UNSET


class FindingAnswer(Struct, omit_defaults=True):
    """``type`` is ``creds`` for creds, empty for the session itself. ``repair``: what `authstore check --fix` would do."""

    rule: str
    severity: Literal["error", "warning"]
    type: str
    id: str
    message: str
    repair: str | UnsetType = UNSET


class IntegrityAnswer(Struct):
    """``checked``: rows, creds among them. ``errors`` and ``warnings`` count all; the first 10,000 findings are named."""

    session: str
    version: int
    checked: int
    errors: int
    warnings: int
    findings: list[FindingAnswer]


class CommitsAnswer(Struct):
    results: list[BatchedAnswer]


_COMMIT = msgspec.json.Decoder(CommitBody)
_COMMITS = msgspec.json.Decoder(CommitsBody)
_STATE = msgspec.json.Decoder(StateBody)
_LEASE = msgspec.json.Decoder(LeaseBody)
_GET = msgspec.json.Decoder(dict[str, list[str]])


def parse_commit(body: bytes, steering: "Steering") -> CommitRequest:
    """A commit's body and headers. Raises BadBody, BadInput."""
    decoded = decode(_COMMIT, body)
    if len(body) > ROWS_MOST * _ROW_BYTES:
        _bound([decoded.value.keys], "/keys")
    return _commit(decoded, decoded.value, steering.lease_epoch, steering.if_match, steering.key)


def parse_commits(body: bytes) -> list[tuple[str, CommitRequest | BadInput]]:
    """``(session, commit or what is wrong with it)`` of each. Raises BadBody when the whole is not of the shape,
    BadInput when it is too much.
    """
    decoded = decode(_COMMITS, body)
    if len(body) > ROWS_MOST * _ROW_BYTES:
        _bound([each.keys for each in decoded.value.commits], "/commits")
    keyed: Counter[str] = Counter()
    found: list[tuple[str, CommitRequest | BadInput]] = []
    for each in decoded.value.commits:
        if each.idempotency_key is not None:
            keyed[each.session] += 1
            if keyed[each.session] > RECENT_KEPT:
                # Sent again, what more of them pushed out would be applied a second time, over what came after it.
                found.append((each.session, _TOO_MANY))
                continue
        found.append((each.session, _batched(decoded, each)))
    return found


def parse_state(body: bytes, steering: "Steering") -> CommitRequest:
    """A whole session's body. Raises BadBody, BadInput."""
    decoded = decode(_STATE, body)
    parsed = decoded.value
    _bound([parsed.keys], "/keys")
    creds = None if parsed.creds is UNSET or bytes(parsed.creds) == _NULL else _object(decoded, parsed.creds)
    rows = _rows(decoded, parsed.keys)
    if any(row.value is None for row in rows):
        raise BadInput("a state holds values, not deletions", pointer="/keys")
    return CommitRequest(creds, rows, force=parsed.force, whole=True, **steering.named())


def parse_lease(body: bytes) -> LeaseBody:
    """Raises BadBody, BadInput."""
    lease = decode(_LEASE, body).value
    if not lease.holder.isprintable():
        raise BadInput("a holder is printable text", pointer="/holder")
    return lease


def parse_get(body: bytes) -> list[tuple[str, str, bytes]]:
    """``(type, id, id as bytes)`` of every key asked for. Raises BadBody, BadInput."""
    decoded = decode(_GET, body)
    if sum(map(len, decoded.value.values())) > IDS_MOST:
        raise BadInput(f"a get asks for at most {IDS_MOST} ids", pointer="")
    asked: list[tuple[str, str, bytes]] = []
    try:
        for ktype, ids in decoded.value.items():
            check_type(decoded.name(ktype))
            asked += [(ktype, key_id, check_id(decoded.name(key_id))) for key_id in dict.fromkeys(ids)]
    except BadName as error:
        raise BadInput(str(error), pointer="") from None
    return asked


def session_name(text: str) -> str:
    """A session's name from a URL. Raises BadInput."""
    return _named(check_session_name, text)


def type_name(text: str) -> str:
    """A key type from a URL. Raises BadInput."""
    return _named(check_type, text)


class Steering(Struct):
    """The headers of a commit."""

    lease_epoch: int | None
    if_match: int | None
    key: UUID | None

    def named(self) -> dict[str, Any]:
        return {"lease_epoch": self.lease_epoch, "if_match": self.if_match, "key": self.key}


def parse_steering(headers: MultiMapping[str]) -> Steering:
    """``Lease-Epoch``, ``If-Match: "<version>"``, ``Idempotency-Key: <uuid>``. Raises BadBody."""
    version, key = _single(headers, "If-Match"), _single(headers, "Idempotency-Key")
    return Steering(lease_epoch(headers), _if_match(version), _uuid(key))


def lease_epoch(headers: MultiMapping[str]) -> int | None:
    text = _single(headers, "Lease-Epoch")
    return None if text is None else _number(text, "Lease-Epoch is a number")


def render_values(asked: Sequence[tuple[str, str, bytes]], values: Mapping[int, bytes]) -> bytes:
    """``{type: {id: value}}`` with what was found."""
    by_type: dict[str, list[bytes]] = {}
    for place, value in values.items():
        ktype, key_id, _ = asked[place]
        by_type.setdefault(ktype, []).append(quoted(key_id) + b":" + value)
    return b"{" + b",".join(quoted(t) + b":{" + b",".join(members) + b"}" for t, members in by_type.items()) + b"}"


def render_members(keys: Iterable[Opened]) -> bytes:
    """``{id: value}``."""
    return b"{" + b",".join(quoted(key.key_id.decode()) + b":" + key.value for key in keys) + b"}"


def summary(shown: Summary) -> SummaryAnswer:
    lease = None if shown.lease is None else LeaseShown(shown.lease.holder, shown.lease.expires_at)
    keys = {ktype: TypeCount(count, size) for ktype, (count, size) in shown.keys.items()}
    return SummaryAnswer(
        shown.name, shown.version, shown.epoch, lease, shown.paired, keys, shown.created_at, shown.updated_at
    )


def integrity(report: Report) -> IntegrityAnswer:
    findings = [
        FindingAnswer(each.rule, each.severity, each.ktype, each.key_id, each.message, each.repair or UNSET)
        for each in report.findings
    ]
    return IntegrityAnswer(report.session, report.version, report.checked, report.errors, report.warnings, findings)


def _batched(decoded: Decoded[CommitsBody], each: BatchedCommit) -> CommitRequest | BadInput:
    try:
        check_session_name(each.session)
        return _commit(decoded, each, each.lease_epoch, each.if_match, each.idempotency_key)
    except BadName as error:
        return BadInput(str(error))
    except BadBody as error:
        return BadInput(error.detail, pointer=error.pointer)
    except BadInput as error:
        return error


def _commit(
    decoded: Decoded[Any], parsed: CommitBody, epoch: int | None, if_match: int | None, key: UUID | None
) -> CommitRequest:
    creds = None if parsed.creds is UNSET else _object(decoded, parsed.creds)
    rows = _rows(decoded, parsed.keys)
    return CommitRequest(creds, rows, parsed.reset, parsed.force, lease_epoch=epoch, if_match=if_match, key=key)


def _object(decoded: Decoded[Any], raw: Raw) -> bytes:
    text = decoded.text(raw)
    if not is_object(text):
        raise BadBody("creds is an object", pointer="/creds")
    if len(text) > CREDS_MOST:
        raise BadInput(f"creds have at most {CREDS_MOST} bytes", pointer="/creds")
    return text


def _bound(keys: Iterable[Keys], pointer: str) -> None:
    if sum(len(members) for each in keys for members in each.values()) > ROWS_MOST:
        raise BadInput(f"at most {ROWS_MOST} keys come in one request", pointer=pointer)


def _rows(decoded: Decoded[Any], keys: Keys) -> list[Row]:
    rows: list[Row] = []
    name_of, text_of = decoded.name, decoded.text
    try:
        for ktype, members in keys.items():
            check_type(name_of(ktype))
            if len(members) == 1:  # what a commit mostly has of a type
                for name, raw in members.items():
                    value = text_of(raw)
                    rows.append(_row((ktype, check_id(name_of(name)), None if value == _NULL else value)))
            else:
                rows += _rows_of(ktype, check_ids(map(name_of, members)), list(map(text_of, members.values())))
    except BadName as error:
        raise BadInput(str(error), pointer="/keys") from None
    return rows


def _rows_of(ktype: str, ids: list[bytes], values: list[bytes]) -> Iterable[Row]:
    found = [None if value == _NULL else value for value in values] if _NULL in values else values
    return map(_row, zip(repeat(ktype), ids, found, strict=False))


def _named(check: Callable[[str], T], text: str) -> T:
    try:
        return check(text)
    except BadName as error:
        raise BadInput(str(error)) from None


def _single(headers: MultiMapping[str], name: str) -> str | None:
    """A header that was sent twice says nothing unless it says the same."""
    found = headers.getall(name, None)
    if found is None:
        return None
    if len(found) > 1 and len(set(found)) > 1:
        raise BadBody(f"{name} is there more than once, and each time another")
    return found[0]


def _number(text: str, what: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 19):  # noqa: PLR2004 - fits 64 bits
        raise BadBody(what)
    return int(text)


def _if_match(text: str | None) -> int | None:
    if text is None:
        return None
    return _number(text.strip().removeprefix('"').removesuffix('"'), 'If-Match is "<version>"')


def _uuid(text: str | None) -> UUID | None:
    try:
        return None if text is None else UUID(text.strip())
    except ValueError:
        raise BadBody("Idempotency-Key is a UUID") from None
