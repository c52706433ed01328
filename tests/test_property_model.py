"""Generated sequences of calls against a plain model: every answer, and everything stored, to the byte.

`TEST_EXAMPLES` (how many sequences, 40 unless told) and `TEST_SEED` choose the profile; a failure names its seed.
"""

import os
import secrets
from collections import deque
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest
from api import Answer, Api, at, fresh, members_of, sid_of
from hypothesis import HealthCheck, given, note, seed, settings
from hypothesis import strategies as st

from service.records import RECENT_KEPT
from service.store import changes, heads

EXAMPLES = int(os.environ.get("TEST_EXAMPLES", "40"))
SEED = int(os.environ.get("TEST_SEED", secrets.randbelow(1 << 32)))
SESSIONS = 2
POOL = 4

# -- what is sent ------------------------------------------------------------------------------------------------------

_CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
types = st.one_of(
    st.sampled_from(["session", "sender-key", "app-state-sync-key", "__proto__", "a/b"]),
    st.text(_CHARACTERS, min_size=1, max_size=64).filter(lambda text: text not in {".", "..", "pre-key"}),
)
ids = st.one_of(
    st.sampled_from(["1", "4915551234567:3@s.whatsapp.net", "constructor", "__proto__", "AAA+/=", "a" * 512]),
    st.text(_CHARACTERS, min_size=1, max_size=128),
)
_SPACES = st.sampled_from(["", "", "", " ", "\n\t "])
_ESCAPES = st.sampled_from(["\\ud83d", "\\uDE00", "\\ud83d\\ude00", "\\u0000", "\\\\", "\\/", "\\u00e9", '\\"', "\\n"])
_LETTERS = st.characters(exclude_categories=["Cs", "Cc"], exclude_characters='"\\')
_strings = st.lists(st.one_of(_ESCAPES, _LETTERS), max_size=8).map(lambda parts: f'"{"".join(parts)}"')
_numbers = st.from_regex(r"-?(0|[1-9][0-9]{0,25})(\.[0-9]{1,9})?([eE][+-]?[0-9]{1,4})?", fullmatch=True)
_leaves = st.one_of(_strings, _numbers, st.sampled_from(["true", "false", '""', "0", "[]", "{}", "-0", "1e21"]))


def _array(parts: list[tuple[str, str]]) -> str:
    return "[" + ",".join(space + text + space for text, space in parts) + "]"


def _object(parts: list[tuple[str, str, str]]) -> str:
    return "{" + ",".join(f"{space}{name}:{space}{text}" for name, text, space in parts) + "}"


_inner = st.recursive(
    st.one_of(_leaves, st.just("null")),
    lambda inner: st.one_of(
        st.lists(st.tuples(inner, _SPACES), max_size=3).map(_array),
        st.lists(st.tuples(_strings, inner, _SPACES), max_size=3).map(_object),
    ),
    max_leaves=8,
)
values = _inner.filter(lambda text: text != "null")


@dataclass(frozen=True)
class CredsText:
    """Creds as they are sent, with what they say."""

    text: str
    identity: int | None
    paired: bool
    counters: tuple[int | None, int | None]


@st.composite
def creds_texts(draw: st.DrawFn) -> CredsText:
    identity, paired = draw(st.sampled_from([None] + [1] * 8 + [2])), draw(st.sampled_from([True, True, False]))
    counters = (draw(st.sampled_from([None, 1, 2, 2])), draw(st.sampled_from([None, 5, 5])))
    members = {"x": draw(_inner)}
    if identity is not None:
        octets = "[" + ",".join([str(identity)] * 32) + "]"
        members["signedIdentityKey"] = '{"public": {"type":"Buffer","data":%s}}' % octets  # noqa: UP031 - braces
    if paired:
        members["account"] = draw(st.sampled_from(["{}", '{ "details":""}', "1"]))
    if counters[0] is not None:
        members["nextPreKeyId"] = str(counters[0])
    if counters[1] is not None:
        members["signedPreKey"] = f'{{"keyId":{counters[1]}}}'
    order = draw(st.permutations(sorted(members)))
    space = draw(_SPACES)
    text = "{" + ",".join(f'{space}"{name}"{space}:{members[name]}' for name in order) + "}"
    return CredsText(text, identity, paired, counters)


rows = st.dictionaries(
    st.tuples(st.sampled_from([0, 0, 1, 2, 3]), st.sampled_from([0, 0, 1, 2, 3])),
    st.sampled_from([None, None, *range(2 * POOL)]),
    min_size=1,
    max_size=6,
)


@dataclass(frozen=True)
class Commit:
    """A commit. ``match`` and ``epoch`` are offsets to what stands; ``epoch`` "right" is that of a living lease, or none.

    ``key``: none, a new one, or that of an earlier commit (with its own body again, or with this one).
    """

    session: int
    rows: dict[tuple[int, int], int | None]
    creds: int | None
    reset: bool
    force: bool
    whole: bool
    match: int | None
    epoch: int | str | None
    key: str
    back: int
    in_batch: bool


commits = st.builds(
    Commit,
    session=st.sampled_from([0, 0, 0, 1]),
    rows=rows,
    creds=st.sampled_from([None, *range(POOL)]),
    reset=st.sampled_from([False] * 9 + [True]),
    force=st.sampled_from([False] * 9 + [True]),
    whole=st.sampled_from([False] * 9 + [True]),
    match=st.sampled_from([None] * 5 + [0, 0, -1, 1]),
    epoch=st.sampled_from(["right"] * 12 + [None, 0, -1, 1]),
    key=st.sampled_from(["none", "new", "new", "new", "again", "again", "reused"]),
    back=st.sampled_from([1, 1, 1, 2, 2, 3, 5, RECENT_KEPT, RECENT_KEPT + 1]),
    in_batch=st.booleans(),
)
others = st.tuples(
    st.sampled_from(
        ["lease"] * 8 + ["release", "expire", "expire", "expire", "delete", "restore", "restore", "restore", "purge"]
    ),
    st.sampled_from([0, 0, 0, 1]),
    st.sampled_from(["one", "two"]),
    st.booleans(),
    st.sampled_from([None, None, 0, -1, 1]),
)
plans = st.fixed_dictionaries(
    {
        "types": st.lists(types, min_size=POOL - 1, max_size=POOL - 1, unique=True).map(
            lambda some: ["pre-key", *some]
        ),
        "ids": st.lists(ids, min_size=POOL, max_size=POOL, unique=True),
        "values": st.lists(values, min_size=2 * POOL, max_size=2 * POOL),
        "creds": st.lists(creds_texts(), min_size=POOL, max_size=POOL),
        "steps": st.lists(
            st.tuples(st.sampled_from([0, 0, 0, 1]), st.one_of(commits, commits, commits, commits, others)),
            min_size=30,
            max_size=60,
        ),
    }
)

# -- what should come of it --------------------------------------------------------------------------------------------


@dataclass
class Model:
    """One session as the contract tells it."""

    version: int = 0
    epoch: int = 0
    exists: bool = False
    deleted: bool = False
    creds: CredsText | None = None
    rows: dict[tuple[str, str], str] = field(default_factory=dict)
    holder: str | None = None
    live: bool = False
    recent: deque[tuple[Any, Any, int]] = field(default_factory=lambda: deque(maxlen=RECENT_KEPT))
    sent: list[tuple[Any, Any]] = field(default_factory=list)

    def judge(self, new: CredsText | None, *, whole: bool) -> str | None:
        """The refusal that protects the identity."""
        if new is None:
            if not whole:
                return None
            new = CredsText("", None, paired=False, counters=(None, None))
        old = self.creds
        if old is None:
            return None
        if old.paired and not new.paired:
            return "identity-replaced"
        if old.identity is not None and old.identity != new.identity:
            return "identity-replaced" if old.paired or self.rows else None
        went_back = (
            before is not None and (after is None or after < before)
            for before, after in zip(old.counters, new.counters, strict=True)
        )
        return "counter-regressed" if any(went_back) else None

    def refuses(self, body: Any, match: int | None, epoch: int | None) -> str | None:
        reset, force, whole, creds, changes = body
        if not self.exists:
            return "fenced" if epoch is not None else "version-mismatch" if match else None
        if (epoch is not None and epoch != self.epoch) or (epoch is None and self.live):
            return "fenced"
        if match is not None and match != self.version:
            return "version-mismatch"
        if force or reset:
            return None
        overwritten = not whole and any(
            name[0] == "pre-key" and text is not None and self.rows.get(name, text) != text for name, text in changes
        )
        return self.judge(creds, whole=whole) or ("pre-key-overwritten" if overwritten else None)

    def commit(self, body: Any, match: int | None, epoch: int | None, key: UUID | None) -> str | tuple[int, int]:
        """``(version, epoch)``, or the slug of the refusal."""
        if self.deleted:
            return "deleted"
        for known, known_body, version in self.recent:
            if key is not None and known == key:
                told = self.epoch if epoch is None else epoch
                return (version, told) if known_body == body else "idempotency-key-reused"
        refused = self.refuses(body, match, epoch)
        if refused is not None:
            return refused
        reset, _, whole, creds, changes = body
        if reset or whole:
            self.rows, self.creds = {}, None
        if creds is not None:
            self.creds = creds
        for name, text in changes:
            if text is None:
                self.rows.pop(name, None)
            else:
                self.rows[name] = text
        if epoch is None and self.holder is not None:
            self.epoch, self.holder = self.epoch + 1, None
        self.exists, self.version = True, self.version + 1
        self.recent.append((key, body, self.version))
        return self.version, self.epoch

    def lease(self, holder: str, epoch: int | None, *, takeover: bool) -> str | int:
        if self.deleted:
            return "deleted"
        if epoch is not None and (not self.exists or epoch != self.epoch or holder != self.holder):
            return "fenced"
        if self.live and holder != self.holder and not takeover:
            return "leased"
        if holder != self.holder or takeover:
            self.epoch += 1
        self.exists, self.holder, self.live = True, holder, True
        return self.epoch

    def release(self, epoch: int) -> str | None:
        if not self.exists or self.deleted or epoch != self.epoch:
            return "deleted" if self.deleted else "fenced" if self.exists else "no-session"
        self.holder, self.live = None, False
        return None

    def delete(self, epoch: int | None, *, purge: bool) -> str | None:
        if not self.exists:
            return "no-session"
        if self.deleted and not purge:
            return "deleted"
        if not self.deleted:
            if epoch is not None and epoch != self.epoch:
                return "fenced"
            self.epoch, self.holder, self.live, self.deleted = self.epoch + 1, None, False, True
        elif purge and epoch is not None and epoch not in {self.epoch, self.epoch - 1}:
            return "fenced"
        if purge:
            sent = self.sent
            self.__init__(self.version, self.epoch + 1)  # type: ignore[misc]
            self.sent = sent
        return None

    def restore(self) -> str | None:
        if not self.exists:
            return "no-session"
        self.deleted = False
        return None


# -- both, side by side ------------------------------------------------------------------------------------------------


def quoted(text: str) -> str:
    return '"' + "".join(f"\\u{ord(c):04x}" if c in '"\\' or c < " " else c for c in text) + '"'


class Tenant:
    """One tenant's sessions, served and modelled."""

    def __init__(self, api: Api, name: str, plan: dict[str, Any], sessions: list[str]) -> None:
        self.api = api
        self.name = name
        self.plan = plan
        self.sessions = sessions
        self.models = [Model() for _ in sessions]

    async def commit(self, step: Commit) -> None:
        model, session = self.models[step.session], self.sessions[step.session]
        body, key = self._body(step), None
        if step.key != "none":
            key = UUID(bytes=secrets.token_bytes(16), version=4)
        if step.key in {"again", "reused"} and len(model.sent) >= step.back:
            key, old = model.sent[-step.back]
            body = old if step.key == "again" else body
        match = None if step.match is None else max(0, model.version + step.match)
        epoch = max(0, model.epoch + step.epoch) if isinstance(step.epoch, int) else None
        if step.epoch == "right" and model.live:
            epoch = model.epoch
        if match == 0 and not model.exists:
            match = None
        answer = await self._send(session, body, match, epoch, key, in_batch=step.in_batch and not body[2])
        expected = model.commit(body, match, epoch, key)
        if key is not None:
            model.sent.append((key, body))
        got = answer if isinstance(answer, str) else (answer["version"], answer["epoch"])
        assert got == expected, (step, got, expected)
        if not model.holder:
            model.live = False

    def _body(self, step: Commit) -> Any:
        creds = None if step.creds is None else self.plan["creds"][step.creds]
        texts = {
            (self.plan["types"][t], self.plan["ids"][i]): None if v is None else self.plan["values"][v]
            for (t, i), v in sorted(step.rows.items())
        }
        reset = step.reset and creds is not None and not step.whole
        if step.whole:
            texts = {name: text for name, text in texts.items() if text is not None}
        return reset, step.force, step.whole, creds, tuple(texts.items())

    async def _send(
        self, session: str, body: Any, match: int | None, epoch: int | None, key: UUID | None, *, in_batch: bool
    ) -> Any:
        text = self._text(body)
        if in_batch:
            steering = {"if_match": match, "lease_epoch": epoch, "idempotency_key": key and f'"{key}"'}
            members = "".join(f',"{name}":{value}' for name, value in steering.items() if value is not None)
            raw = f'{{"commits":[{{"session":"{session}"{members}{"," if text else ""}{text}}}]}}'
            answer = await self.api.good("POST", "/v1/commits", raw=raw.encode())
            result = answer["results"][0]
            return result["problem"]["type"].rsplit(":", 1)[1] if "problem" in result else result
        headers = {"If-Match": match is not None and f'"{match}"', "Lease-Epoch": epoch is not None and str(epoch)}
        headers = {**headers, "Idempotency-Key": key and str(key)}
        sent = {name: value for name, value in headers.items() if value}
        method, call = ("PUT", "state") if body[2] else ("POST", "commit")
        return said(await self.api.ask(method, at(session, call), raw=f"{{{text}}}".encode(), headers=sent))

    @staticmethod
    def _text(body: Any) -> str:
        reset, force, _, creds, changes = body
        by_type: dict[str, list[str]] = {}
        for (ktype, key_id), text in changes:
            by_type.setdefault(ktype, []).append(f"{quoted(key_id)}:{'null' if text is None else text}")
        keys = ",".join(f"{quoted(ktype)}:{{{','.join(members)}}}" for ktype, members in by_type.items())
        parts = [f'"keys":{{{keys}}}'] if keys else []
        parts += [f'"creds":{creds.text}'] if creds is not None else []
        parts += ['"reset":true'] if reset else []
        parts += ['"force":true'] if force else []
        return ",".join(parts)

    async def other(self, what: str, n: int, holder: str, takeover: bool, off: int | None) -> None:
        model, path = self.models[n], at(self.sessions[n])
        epoch = None if off is None else max(0, model.epoch + off)
        sent = {} if epoch is None else {"Lease-Epoch": str(epoch)}
        if what == "lease":
            body = {"holder": holder, "ttl_s": 600, "takeover": takeover}
            answer = said(await self.api.ask("POST", path + "/lease", body, headers=sent))
            got = answer if isinstance(answer, str) else answer["epoch"]
            assert got == model.lease(holder, epoch, takeover=takeover)
        elif what == "release":
            epoch = model.epoch if epoch is None else epoch
            answer = await self.api.ask("DELETE", path + "/lease", headers={"Lease-Epoch": str(epoch)})
            assert said(answer) == model.release(epoch)
        elif what == "expire":
            statement = (
                "UPDATE sessions SET lease_expires = now() - interval '1 s' WHERE sid = $1 AND lease_holder <> ''"
            )
            await self.api.sql(statement, sid_of(self.sessions[n], self.name))
            model.live = False
        elif what in {"delete", "purge"}:
            query = "?purge=true" if what == "purge" else ""
            answer = said(await self.api.ask("DELETE", path + query, headers=sent))
            expected = model.delete(epoch, purge=what == "purge")
            assert answer == expected if isinstance(answer, str) else expected is None
        else:
            answer = said(await self.api.ask("POST", path + "/restore"))
            expected = model.restore()
            assert answer == expected if isinstance(answer, str) else expected is None

    async def check(self) -> None:
        """Everything stored is what the model holds, on every way out."""
        for session, model in zip(self.sessions, self.models, strict=True):
            answer = await self.api.ask("GET", at(session, "state"))
            if not model.exists or model.deleted:
                assert answer.slug == ("deleted" if model.deleted else "no-session")
                continue
            assert (answer.json["version"], answer.json["epoch"]) == (model.version, model.epoch)
            creds = members_of(answer.text)["creds"].decode()
            assert creds == ("null" if model.creds is None else model.creds.text)
            expected = {name: text.encode() for name, text in model.rows.items()}
            keys = {ktype: members_of(answer.text, "keys", ktype) for ktype in members_of(answer.text, "keys")}
            assert flat(keys) == expected
            asked = {ktype: list(self.plan["ids"]) for ktype in self.plan["types"]}
            got = await self.api.ask("POST", at(session, "keys/get"), asked)
            assert flat({ktype: members_of(got.text, ktype) for ktype in members_of(got.text)}) == expected
            assert flat({ktype: await self._pages(session, ktype) for ktype in self.plan["types"]}) == expected
            summary = await self.api.summary(session)
            assert {ktype: shown["count"] for ktype, shown in summary["keys"].items()} == {
                ktype: len(members) for ktype, members in keys.items()
            }
            assert summary["paired"] == (model.creds is not None and model.creds.paired)
            assert (summary["lease"] or {}).get("holder") == (model.holder if model.live else None)

    async def _pages(self, session: str, ktype: str) -> dict[str, bytes]:
        path = at(session, "keys/") + at(ktype).removeprefix("/v1/sessions/") + "?values=true&limit=2"
        found: dict[str, bytes] = {}
        cursor = None
        while True:
            page = await self.api.ask("GET", path + (f"&cursor={cursor}" if cursor else ""))
            members = members_of(page.text, "values")
            assert not members.keys() & found.keys()
            assert len(members) <= 2
            found |= members
            cursor = page.json["next"]
            if cursor is None:
                return found


def said(answer: Answer) -> Any:
    """The JSON of a good answer, None when it has none, the slug of a refusal."""
    if answer.status >= 400:
        assert answer.status < 500, answer.text
        return answer.slug
    return answer.json if answer.text else None


def flat(keys: dict[str, dict[str, bytes]]) -> dict[tuple[str, str], bytes]:
    return {(ktype, key_id): text for ktype, members in keys.items() for key_id, text in members.items()}


@pytest.fixture(params=["rows", "bursts", "journal"])
def ways(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commits as small as these become rows at once; or wait when they follow on each other; or wait always."""
    monkeypatch.setattr(changes, "_JOURNAL_FROM", 0 if request.param == "journal" else changes._JOURNAL_FROM)
    monkeypatch.setattr(heads, "_BURST", 1 if request.param == "bursts" else 1 << 30)


@pytest.fixture
async def two(api: Api) -> list[tuple[Api, str]]:
    """Two tenants of one service."""
    return [(await api.tenant(name), name) for name in ("left", "right")]


@seed(SEED)
@settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(plan=plans)
@pytest.mark.usefixtures("ways")
async def test_the_store_does_what_the_model_does(two: list[tuple[Api, str]], plan: dict[str, Any]):
    note(f"again with TEST_SEED={SEED} TEST_EXAMPLES={EXAMPLES}")
    sessions = [fresh() for _ in range(SESSIONS)]
    tenants = [Tenant(api, name, plan, sessions) for api, name in two]
    for n, step in plan["steps"]:
        if isinstance(step, Commit):
            await tenants[n].commit(step)
        else:
            await tenants[n].other(*step)
    for tenant in tenants:
        await tenant.check()
