"""A thousand changes made straight in the database, and none that a check does not notice."""

import random
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
import states
from api import Api, at, sid_of

from protocol.rules import RULES
from service.errors import NoSession
from service.integrity import check_session
from service.integrity.sweep import Begun, sweep
from service.store import Caller

TAMPERS = 1000
SESSIONS = (("default", "one"), ("default", "two"), ("stranger", "one"))
ONE, TWO, STRANGER = (sid_of(name, tenant) for tenant, name in SESSIONS)
NOTHING_FOUND = "nothing"

Rows = list[asyncpg.Record]


def small(release: str) -> dict[str, Any]:
    """A real state with few pre-keys."""
    state = states.load(release)
    newest = state["creds"]["nextPreKeyId"] - 1
    state["keys"]["pre-key"] = {str(at): state["keys"]["pre-key"][str(at)] for at in range(newest - 4, newest + 1)}
    return state


class Database:
    """The service's database, changed behind its back and put back as it was."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self.connection = connection
        self.then: dict[uuid.UUID, tuple[asyncpg.Record, Rows]] = {}
        self.now: dict[uuid.UUID, tuple[asyncpg.Record, Rows]] = {}
        self.verdicts: Rows = []

    async def read(self) -> dict[uuid.UUID, tuple[asyncpg.Record, Rows]]:
        found = {}
        for sid in (ONE, TWO, STRANGER):
            head = await self.connection.fetchrow("SELECT * FROM sessions WHERE sid = $1", sid)
            assert head is not None
            rows = await self.connection.fetch("SELECT * FROM session_keys WHERE sid = $1 ORDER BY kh", sid)
            found[sid] = (head, rows)
        return found

    async def put_back(self) -> None:
        async with self.connection.transaction():
            await self.connection.execute("DELETE FROM session_keys")
            await self.connection.execute("DELETE FROM sessions")
            await self.connection.execute("DELETE FROM integrity_verdicts")
            await self._insert("integrity_verdicts", self.verdicts)
            for head, rows in self.now.values():
                await self.put_head(head)
                await self.put_rows(rows)

    async def put_head(self, head: asyncpg.Record) -> None:
        await self.connection.execute("DELETE FROM sessions WHERE sid = $1", head["sid"])
        await self._insert("sessions", [head])

    async def put_rows(self, rows: Rows) -> None:
        await self._insert("session_keys", rows)

    async def _insert(self, table: str, rows: Rows) -> None:
        names = list(rows[0].keys())
        places = ", ".join(f"${at}" for at in range(1, len(names) + 1))
        statement = f"INSERT INTO {table} ({', '.join(names)}) VALUES ({places}) ON CONFLICT DO NOTHING"
        await self.connection.executemany(statement, [tuple(row.values()) for row in rows])

    async def change_row(self, row: asyncpg.Record, **values: Any) -> None:
        sets = ", ".join(f"{name} = ${at}" for at, name in enumerate(values, 3))
        statement = f"UPDATE session_keys SET {sets} WHERE sid = $1 AND kh = $2"
        await self.connection.execute(statement, row["sid"], row["kh"], *values.values())

    async def change_head(self, sid: uuid.UUID, **values: Any) -> None:
        sets = ", ".join(f"{name} = ${at}" for at, name in enumerate(values, 2))
        await self.connection.execute(f"UPDATE sessions SET {sets} WHERE sid = $1", sid, *values.values())


@pytest.fixture
async def database(own_api: Api) -> AsyncIterator[Database]:
    """Three sessions, each written, written again, and checked."""
    for tenant, name in SESSIONS:
        api = own_api if tenant == "default" else await own_api.tenant(tenant)
        state = small("7.0.0-rc14" if name == "one" else "6.7.24")
        first = state["keys"]["pre-key"].pop(min(state["keys"]["pre-key"]))
        extra = {"lid-mapping": {"15550101234": "100000000001234", "100000000001234_reverse": "15550101234"}}
        await api.commit(name, {"creds": state["creds"], "keys": {**state["keys"], "device-list": {"1": ["0"]}}})
        await api.commit(name, {"keys": {"pre-key": {"1": first}, **extra}})
    connection = await asyncpg.connect(own_api.url)
    database = Database(connection)
    database.then = await database.read()
    for tenant, name in SESSIONS:
        api = own_api if tenant == "default" else await own_api.tenant(tenant)
        change = {
            "device-list": {"1": ["0", "7"]},
            "lid-mapping": {"15550101234": None, "100000000001234_reverse": None},
        }
        await api.commit(name, {"keys": change})
        report = await check_session(own_api.store, Caller(tenant, "read"), name)
        assert report.errors == 0, report.rules
    database.now = await database.read()
    database.verdicts = await connection.fetch("SELECT * FROM integrity_verdicts")
    yield database
    await connection.close()


Tamper = Callable[[Database, random.Random], Awaitable[object]]
TAMPERS_OF: dict[str, Tamper] = {}


def tamper(make: Tamper) -> Tamper:
    TAMPERS_OF[make.__name__.replace("_", " ")] = make
    return make


def pick(database: Database, draw: random.Random, *sids: uuid.UUID) -> asyncpg.Record:
    return draw.choice(database.now[draw.choice(sids or (ONE, TWO, STRANGER))][1])


def turned(data: bytes, draw: random.Random) -> bytes:
    changed = bytearray(data)
    bit = draw.randrange(8 * len(changed))
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


@tamper
async def a_bit_of_a_sealed_value(database: Database, draw: random.Random) -> None:
    row = pick(database, draw)
    await database.change_row(row, sealed=turned(row["sealed"], draw))


@tamper
async def a_bit_of_a_keyed_hash(database: Database, draw: random.Random) -> None:
    row = pick(database, draw)
    await database.change_row(row, kh=turned(row["kh"], draw))


@tamper
async def a_bit_of_a_digest(database: Database, draw: random.Random) -> None:
    row, half = pick(database, draw), draw.choice(("d_hi", "d_lo"))
    number = row[half] ^ (1 << draw.randrange(63))
    await database.change_row(row, **{half: number})


@tamper
async def a_sealed_value_cut_off(database: Database, draw: random.Random) -> None:
    row = pick(database, draw)
    await database.change_row(row, sealed=row["sealed"][: draw.randrange(36, len(row["sealed"]))])


@tamper
async def another_type(database: Database, draw: random.Random) -> None:
    row = pick(database, draw)
    types = sorted({"", "pre-key", "session", "fork"} - {row["ktype"]})
    await database.change_row(row, ktype=draw.choice(types))


@tamper
async def two_rows_of_a_session_exchanged(database: Database, draw: random.Random) -> None:
    one, other = draw.sample(database.now[draw.choice((ONE, TWO, STRANGER))][1], 2)
    for row, source in ((one, other), (other, one)):
        await database.change_row(
            row, ktype=source["ktype"], d_hi=source["d_hi"], d_lo=source["d_lo"], sealed=source["sealed"]
        )


@tamper
async def the_sealed_values_of_two_rows_exchanged(database: Database, draw: random.Random) -> None:
    one, other = draw.sample(database.now[ONE][1], 2)
    await database.change_row(one, sealed=other["sealed"])
    await database.change_row(other, sealed=one["sealed"])


@tamper
async def a_row_of_another_session_in_its_place(database: Database, draw: random.Random) -> None:
    row, source = pick(database, draw, ONE), pick(database, draw, TWO)
    await database.change_row(
        row, ktype=source["ktype"], d_hi=source["d_hi"], d_lo=source["d_lo"], sealed=source["sealed"]
    )


@tamper
async def a_row_of_another_tenant_in_its_place(database: Database, draw: random.Random) -> None:
    row, source = pick(database, draw, ONE), pick(database, draw, STRANGER)
    await database.change_row(
        row, ktype=source["ktype"], d_hi=source["d_hi"], d_lo=source["d_lo"], sealed=source["sealed"]
    )


@tamper
async def a_row_moved_to_another_session(database: Database, draw: random.Random) -> None:
    await database.change_row(pick(database, draw, ONE, TWO), sid=STRANGER)


@tamper
async def a_row_deleted(database: Database, draw: random.Random) -> None:
    row = pick(database, draw)
    await database.connection.execute("DELETE FROM session_keys WHERE sid = $1 AND kh = $2", row["sid"], row["kh"])


@tamper
async def some_rows_deleted(database: Database, draw: random.Random) -> None:
    for row in draw.sample(database.now[ONE][1], draw.randrange(2, 9)):
        await database.connection.execute("DELETE FROM session_keys WHERE sid = $1 AND kh = $2", row["sid"], row["kh"])


@tamper
async def a_row_as_it_was_before(database: Database, draw: random.Random) -> None:
    sid = draw.choice((ONE, TWO, STRANGER))
    now = {row["kh"]: row for row in database.now[sid][1]}
    old = [row for row in database.then[sid][1] if row["kh"] in now and now[row["kh"]]["sealed"] != row["sealed"]]
    row = draw.choice(old)
    await database.change_row(row, d_hi=row["d_hi"], d_lo=row["d_lo"], sealed=row["sealed"])


@tamper
async def a_deleted_row_brought_back(database: Database, draw: random.Random) -> None:
    sid = draw.choice((ONE, TWO, STRANGER))
    now = {row["kh"] for row in database.now[sid][1]}
    await database.put_rows([draw.choice([row for row in database.then[sid][1] if row["kh"] not in now])])


@tamper
async def the_head_as_it_was_before(database: Database, draw: random.Random) -> None:
    await database.put_head(database.then[draw.choice((ONE, TWO, STRANGER))][0])


@tamper
async def the_whole_session_as_it_was_before(database: Database, draw: random.Random) -> None:
    sid = draw.choice((ONE, TWO, STRANGER))
    await database.connection.execute("DELETE FROM session_keys WHERE sid = $1", sid)
    head, rows = database.then[sid]
    await database.put_head(head)
    await database.put_rows(rows)


@tamper
async def a_counter_of_the_columns(database: Database, draw: random.Random) -> None:
    name = draw.choice(("next_pre_key", "first_unuploaded", "account_sync", "signed_pre_key"))
    await database.change_head(draw.choice((ONE, TWO)), **{name: draw.randrange(1000, 9000)})


@tamper
async def the_identity_of_the_columns(database: Database, draw: random.Random) -> None:
    tag = database.now[ONE][0]["identity_tag"]
    await database.change_head(
        ONE, identity_tag=draw.choice((turned(tag, draw), None, database.now[TWO][0]["identity_tag"]))
    )


@tamper
async def paired_in_the_columns(database: Database, draw: random.Random) -> None:
    await database.change_head(draw.choice((ONE, TWO)), paired=False)


@tamper
async def the_version(database: Database, draw: random.Random) -> None:
    sid = draw.choice((ONE, TWO))
    await database.change_head(sid, version=database.now[sid][0]["version"] + draw.choice((-1, 1, 100)))


@tamper
async def the_count_of_rows(database: Database, draw: random.Random) -> None:
    await database.change_head(ONE, row_count=database.now[ONE][0]["row_count"] + draw.choice((-1, 1)))


@tamper
async def the_mark(database: Database, draw: random.Random) -> None:
    mark = database.now[ONE][0]["mark"]
    await database.change_head(ONE, mark=draw.choice((mark ^ 1, 0, database.now[TWO][0]["mark"])))


@tamper
async def the_remembered_commits(database: Database, draw: random.Random) -> None:
    await database.change_head(ONE, recent=turned(database.now[ONE][0]["recent"], draw))


@tamper
async def a_bit_of_the_wrapped_key(database: Database, draw: random.Random) -> None:
    await database.change_head(ONE, wrapped_key=turned(database.now[ONE][0]["wrapped_key"], draw))


@tamper
async def another_sessions_data_key(database: Database, draw: random.Random) -> None:
    other = database.now[draw.choice((TWO, STRANGER))][0]
    await database.change_head(ONE, wrapped_key=other["wrapped_key"], dek_id=other["dek_id"])


@tamper
async def another_number_of_the_data_key(database: Database, draw: random.Random) -> None:
    await database.change_head(ONE, dek_id=draw.randrange(1 << 31))


@tamper
async def the_name(database: Database, draw: random.Random) -> None:
    await database.change_head(ONE, name=f"renamed{draw.randrange(100)}")


@tamper
async def the_tenant(database: Database, draw: random.Random) -> None:
    await database.change_head(TWO, tenant="stranger")


@tamper
async def the_sessions_row_deleted(database: Database, draw: random.Random) -> None:
    await database.connection.execute("DELETE FROM sessions WHERE sid = $1", draw.choice((ONE, TWO, STRANGER)))


@tamper
async def a_session_deleted_with_its_rows(database: Database, draw: random.Random) -> None:
    sid = draw.choice((ONE, TWO, STRANGER))
    await database.connection.execute("DELETE FROM sessions WHERE sid = $1", sid)
    await database.connection.execute("DELETE FROM session_keys WHERE sid = $1", sid)


async def noticed(api: Api) -> set[str]:
    """The errors that the first check tells which tells any: by name, and in a sweep where a session is not there."""
    for tenant, name in SESSIONS:
        try:
            report = await check_session(api.store, Caller(tenant, "read"), name)
        except NoSession:
            found = await swept(api)
        else:
            found = {rule for rule in report.rules if RULES[rule].severity == "error"}
        if found:
            return found
    return set()


async def swept(api: Api) -> set[str]:
    found: set[str] = set()
    async for each in sweep(api.store, None, restart=True):
        if isinstance(each, Begun):
            continue
        rules = each.rules if hasattr(each, "rules") else {each.finding.rule: 1}
        found |= {rule for rule in rules if RULES[rule].severity == "error"}
    return found


@pytest.mark.slow
@pytest.mark.timeout(1200)
async def test_every_change_in_the_database_is_noticed(own_api: Api, database: Database) -> None:
    draw = random.Random(61)
    assert await noticed(own_api) == set()
    missed, rules = [], Counter[str]()
    names = sorted(TAMPERS_OF)
    for number in range(TAMPERS):
        name = names[number % len(names)]
        await TAMPERS_OF[name](database, draw)
        found = await noticed(own_api)
        if not found:
            missed.append(name)
        rules.update(found)
        await database.put_back()
        if number % 50 == 0:
            assert await noticed(own_api) == set(), f"still there: {name}"
    assert missed == []
    assert await noticed(own_api) == set()
    stored = {"row-unreadable", "row-foreign-key", "set-unproven", "columns-disagree", "data-key-unreadable",
              "session-misplaced", "version-regressed", "orphan-rows", "session-vanished"}  # fmt: skip
    assert stored <= set(rules), stored - set(rules)


async def test_a_check_goes_on_after_a_row_that_does_not_open(own_api: Api, database: Database) -> None:
    state = small("7.0.0-rc14")
    rows = database.now[ONE][1]
    spoiled = next(row for row in rows if row["ktype"] == "session")
    await database.change_row(spoiled, sealed=turned(spoiled["sealed"], random.Random(1)))
    own = next(key_id for key_id in state["keys"]["sender-key"] if "0002" in key_id.split("::")[1])
    await own_api.commit("one", {"keys": {"sender-key": {own: None}}})
    report = await own_api.good("GET", at("one", "integrity"))
    told = {(each["rule"], each["type"], each["id"]) for each in report["findings"]}
    assert ("row-unreadable", "session", spoiled["kh"].hex()) in told
    assert ("sender-key-memory-stale", "sender-key-memory", "120363000000001000@g.us") in told
    assert report["checked"] == len(rows) - 1
