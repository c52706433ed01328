"""Somebody changes the database: every change is 500 `corrupt`, never a value, never "absent" from a whole state."""

import random
from typing import Any

import pytest
from aiohttp import ClientError
from api import Api, at, creds, serve, sid_of

SEED = 20261123
TAMPERS = 240
SESSIONS = ("one", "two")
ROWS = {"session": {"a": 1, "b": 2}, "pre-key": {"1": {"x": 1}, "2": {"x": 2}}}

# What is not bound to the mark is not in this list: lease, epoch, names and times can be changed by whoever owns the
# database, and cost no secret and no value.
SESSION_CHANGES = {
    "version": "version + 1",
    "version back": "version - 1",
    "mark": "(mark + 1) % 2305843009213693951",
    "mark away": "0",
    "row_count": "row_count + 1",
    "row_count less": "row_count - 1",
    "recent": "set_byte(recent, 19, 255 - get_byte(recent, 19))",
    "recent none": "''",
    "identity_tag": "set_byte(identity_tag, 2, 255 - get_byte(identity_tag, 2))",
    "identity_tag none": "NULL",
    "paired": "NOT paired",
    "next_pre_key": "next_pre_key - 1",
    "next_pre_key none": "NULL",
    "first_unuploaded": "0",
    "account_sync": "account_sync + 1",
    "signed_pre_key": "2",
    "dek_id": "dek_id # 1",
    "wrapped_key": "set_byte(wrapped_key, 29, 255 - get_byte(wrapped_key, 29))",
}


class Scene:
    """Sessions of two tenants, what they were before their last commit, and a way back from every change."""

    def __init__(self, api: Api, other: Api) -> None:
        self.apis = {"default": api, "other": other}
        self.api = api

    async def build(self) -> None:
        for api in self.apis.values():
            for session in SESSIONS:
                old = {ktype: dict.fromkeys(members, "old") for ktype, members in ROWS.items()}
                await api.commit(session, {"creds": creds(registered="old"), "keys": old})
        await self.api.sql("CREATE TABLE older AS SELECT * FROM session_keys")
        for api in self.apis.values():
            for session in SESSIONS:
                await api.commit(session, {"creds": creds(), "keys": ROWS, "force": True})
        await self.api.sql("CREATE TABLE kept_keys AS SELECT * FROM session_keys")
        await self.api.sql("CREATE TABLE kept_sessions AS SELECT * FROM sessions")

    async def undo(self) -> None:
        await self.api.sql("DELETE FROM session_keys")
        await self.api.sql("DELETE FROM sessions")
        await self.api.sql("INSERT INTO sessions SELECT * FROM kept_sessions")
        await self.api.sql("INSERT INTO session_keys SELECT * FROM kept_keys")

    async def rows(self) -> list[Any]:
        found = await self.api.sql(
            "SELECT k.*, s.name, s.tenant FROM session_keys k JOIN sessions s USING (sid) ORDER BY 1, 2"
        )
        return list(found)

    async def state_is_corrupt(self, tenant: str, session: str) -> str:
        """GET state says so; the detail."""
        answer = await self.apis[tenant].ask("GET", at(session, "state"))
        assert (answer.status, answer.slug) == (500, "corrupt"), answer.text[:200]
        assert set(answer.json) <= {"type", "title", "status", "detail", "row", "request_id"}
        return str(answer.json["detail"])

    async def row_is_corrupt(self, row: Any, changed: list[Any]) -> None:
        """Getting the key, and paging through its type, says so and names the row."""
        api, ktype = self.apis[row["tenant"]], row["ktype"]
        if not ktype:
            answers = [await api.ask("GET", at(row["name"], "creds"))]
        else:
            asked = {ktype: list(ROWS[ktype])}
            answers = [await api.ask("POST", at(row["name"], "keys/get"), asked)]
            answers.append(await api.ask("GET", at(row["name"], f"keys/{ktype}?values=true")))
            answers.append(await api.ask("GET", at(row["name"], f"keys/{ktype}")))
        for answer in answers:
            assert (answer.status, answer.slug) == (500, "corrupt")
            assert answer.json["row"] in {each["kh"].hex() for each in changed}

    async def all_is_well(self) -> None:
        for api in self.apis.values():
            for session in SESSIONS:
                state = await api.state(session)
                assert (state["keys"], state["creds"]) == (ROWS, creds())


@pytest.fixture
async def scene(own_api: Api) -> Scene:
    built = Scene(own_api, await own_api.tenant("other"))
    await built.build()
    await built.all_is_well()
    return built


def flipped(rng: random.Random, raw: bytes) -> bytes:
    bit = rng.randrange(len(raw) * 8)
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


async def change_content(scene: Scene, rng: random.Random) -> list[Any]:
    """A row is there, but not with what it should hold: the rows changed."""
    rows = await scene.rows()
    one = rng.choice(rows)
    sql, key = scene.api.sql, (one["sid"], one["kh"])
    how = rng.choice(["flip", "cut", "digest", "swap", "swap", "copy", "older digest", "older sealed", "type"])
    if how == "flip":
        await sql("UPDATE session_keys SET sealed = $3 WHERE sid = $1 AND kh = $2", *key, flipped(rng, one["sealed"]))
    elif how == "cut":
        await sql("UPDATE session_keys SET sealed = $3 WHERE sid = $1 AND kh = $2", *key, one["sealed"][:-1])
    elif how == "digest":
        column, bit = rng.choice(["d_hi", "d_lo"]), 1 << rng.randrange(63)
        await sql(f"UPDATE session_keys SET {column} = {column} # $3 WHERE sid = $1 AND kh = $2", *key, bit)
    elif how == "type":
        ktype = {"session": "pre-key", "pre-key": "session", "": "session"}[one["ktype"]]
        await sql("UPDATE session_keys SET ktype = $3 WHERE sid = $1 AND kh = $2", *key, ktype)
        return []
    elif how.startswith("older"):
        columns = "sealed" if how == "older sealed" else "d_hi, d_lo"
        await sql(
            f"UPDATE session_keys k SET ({columns}) = (SELECT {columns} FROM older o WHERE o.sid = k.sid AND o.kh = k.kh)"
            " WHERE sid = $1 AND kh = $2",
            *key,
        )
    else:
        # Another id, type, session or tenant; with its digest, or without.
        two = rng.choice([row for row in rows if row["kh"] != one["kh"] or row["sid"] != one["sid"]])
        with_digest = rng.random() < 0.7
        for target, source in ((one, two), (two, one)) if how == "swap" else ((one, two),):
            digest = (source if with_digest else target)["d_hi"], (source if with_digest else target)["d_lo"]
            await sql(
                "UPDATE session_keys SET sealed = $3, d_hi = $4, d_lo = $5 WHERE sid = $1 AND kh = $2",
                target["sid"],
                target["kh"],
                source["sealed"],
                *digest,
            )
        return [one, two] if how == "swap" else [one]
    return [one]


async def change_set(scene: Scene, rng: random.Random) -> list[Any]:
    """Every row by itself is genuine, or is not looked for: only the whole tells. The rows whose sessions changed."""
    rows = await scene.rows()
    one = rng.choice(rows)
    sql, key = scene.api.sql, (one["sid"], one["kh"])
    how = rng.choice(["delete", "delete", "older", "older", "rename", "foreign", "double", "delete all"])
    if how == "delete":
        await sql("DELETE FROM session_keys WHERE sid = $1 AND kh = $2", *key)
    elif how == "delete all":
        await sql("DELETE FROM session_keys WHERE sid = $1", one["sid"])
    elif how == "older":
        await sql(
            "UPDATE session_keys k SET (sealed, d_hi, d_lo) = (SELECT sealed, d_hi, d_lo FROM older o"
            " WHERE o.sid = k.sid AND o.kh = k.kh) WHERE sid = $1 AND kh = $2",
            *key,
        )
    elif how == "rename":
        await sql("UPDATE session_keys SET kh = $3 WHERE sid = $1 AND kh = $2", *key, flipped(rng, one["kh"]))
    elif how == "double":
        await sql(
            "INSERT INTO session_keys SELECT sid, $3, ktype, d_hi, d_lo, sealed FROM session_keys WHERE sid = $1 AND kh = $2",
            *key,
            flipped(rng, one["kh"]),
        )
    else:
        two = rng.choice([row for row in rows if row["sid"] != one["sid"]])
        await sql(
            "INSERT INTO session_keys SELECT $3, kh, ktype, d_hi, d_lo, sealed FROM session_keys WHERE sid = $1 AND kh = $2",
            two["sid"],
            two["kh"],
            one["sid"],
        )
    # A row count that fits hides none of it.
    if rng.random() < 0.5:
        await sql(
            "UPDATE sessions SET row_count = (SELECT count(*) FROM session_keys k WHERE k.sid = sessions.sid) WHERE sid = $1",
            one["sid"],
        )
    return [one]


@pytest.mark.parametrize("part", range(4))
async def test_changed_rows_are_corrupt(scene: Scene, part: int):
    rng = random.Random(SEED + part)
    for n in range(TAMPERS // 4):
        changed = await (change_content if n % 2 else change_set)(scene, rng)
        try:
            for row in changed:
                await scene.state_is_corrupt(row["tenant"], row["name"])
                if n % 2:
                    await scene.row_is_corrupt(row, changed)
        except AssertionError as error:
            error.add_note(f"tamper {n} of part {part}")
            raise
        await scene.undo()
    await scene.all_is_well()


@pytest.mark.parametrize("ktype", ["session", "pre-key", ""])
async def test_a_row_of_another_type_is_corrupt(scene: Scene, ktype: str):
    for row in await scene.rows():
        if row["ktype"] == ktype or row["name"] != "one":
            continue
        await scene.api.sql(
            "UPDATE session_keys SET ktype = $3 WHERE sid = $1 AND kh = $2", row["sid"], row["kh"], ktype
        )
        await scene.state_is_corrupt(row["tenant"], row["name"])
        await scene.undo()


@pytest.mark.parametrize("what", SESSION_CHANGES)
async def test_a_changed_session_is_corrupt(scene: Scene, what: str):
    column = what.split(maxsplit=1)[0]
    await scene.api.sql(f"UPDATE sessions SET {column} = {SESSION_CHANGES[what]} WHERE sid = $1", sid_of("one"))
    await scene.state_is_corrupt("default", "one")
    async with serve(scene.api.url) as fresh:  # which remembers nothing
        answer = await fresh.ask("GET", at("one", "state"))
        assert (answer.status, answer.slug) == (500, "corrupt")
        if column in {"dek_id", "wrapped_key"}:
            for method, call, body in (("GET", "creds", None), ("POST", "keys/get", {"session": ["a"]})):
                answer = await fresh.ask(method, at("one", call), body)
                assert (answer.status, answer.slug) == (500, "corrupt")
    await scene.apis["default"].state("two")


async def test_a_changed_session_stays_corrupt_under_later_commits(scene: Scene):
    await scene.api.sql("DELETE FROM session_keys WHERE sid = $1 AND ktype = 'pre-key'", sid_of("one"))
    await scene.api.sql("UPDATE sessions SET paired = false, identity_tag = NULL WHERE sid = $1", sid_of("two"))
    async with serve(scene.api.url) as fresh:  # a service that remembers a session puts it right
        for session in SESSIONS:
            for n in range(3):
                await fresh.commit(session, {"keys": {"session": {"a": n}}})
            assert (await fresh.ask("GET", at(session, "state"))).slug == "corrupt"
            await fresh.commit(session, {"creds": creds(), "keys": ROWS, "reset": True})
            assert (await fresh.state(session))["keys"] == ROWS


async def test_a_changed_row_leaves_the_others_well(scene: Scene):
    for row in await scene.rows():
        key = row["sid"], row["kh"]
        await scene.api.sql("UPDATE session_keys SET d_lo = d_lo # 4 WHERE sid = $1 AND kh = $2", *key)
        api, corrupt = scene.apis[row["tenant"]], 0
        for ktype, members in ROWS.items():
            for key_id, value in members.items():
                answer = await api.ask("POST", at(row["name"], "keys/get"), {ktype: [key_id]})
                corrupt += answer.status == 500
                assert answer.status == 500 or answer.json == {ktype: {key_id: value}}
        creds_ = await api.ask("GET", at(row["name"], "creds"))
        assert corrupt + (creds_.status == 500) == 1
        await scene.undo()


async def test_a_session_under_another_name_is_corrupt(scene: Scene):
    """The row of one session, with its rows, put in the place of another."""
    one, two = sid_of("one"), sid_of("two")
    await scene.api.sql("DELETE FROM session_keys WHERE sid = $1", two)
    await scene.api.sql("DELETE FROM sessions WHERE sid = $1", two)
    await scene.api.sql("UPDATE session_keys SET sid = $2 WHERE sid = $1", one, two)
    await scene.api.sql("UPDATE sessions SET sid = $2, name = 'two' WHERE sid = $1", one, two)
    async with serve(scene.api.url) as fresh:
        answer = await fresh.ask("GET", at("two", "state"))
        assert (answer.status, answer.slug) == (500, "corrupt")


async def test_a_tenants_session_under_another_tenant_is_corrupt(scene: Scene):
    theirs, ours = sid_of("one", "other"), sid_of("one")
    for table in ("session_keys", "sessions"):
        await scene.api.sql(f"DELETE FROM {table} WHERE sid = $1", ours)
        await scene.api.sql(f"UPDATE {table} SET sid = $2 WHERE sid = $1", theirs, ours)
    await scene.api.sql("UPDATE sessions SET tenant = 'default' WHERE sid = $1", ours)
    async with serve(scene.api.url) as fresh:
        answer = await fresh.ask("GET", at("one", "state"))
        assert (answer.status, answer.slug) == (500, "corrupt")


async def test_a_session_row_of_an_older_version_is_corrupt(own_api: Api):
    await own_api.commit("one", {"creds": creds(), "keys": ROWS})
    await own_api.sql("CREATE TABLE kept AS SELECT * FROM sessions")
    await own_api.commit("one", {"keys": {"session": {"a": 9}}})
    await own_api.sql("DELETE FROM sessions")
    await own_api.sql("INSERT INTO sessions SELECT * FROM kept")
    assert (await own_api.ask("GET", at("one", "state"))).slug == "corrupt"


async def test_a_pre_key_that_does_not_open_is_corrupt_also_when_it_is_compared(scene: Scene):
    row = next(
        row for row in await scene.rows() if (row["ktype"], row["name"], row["tenant"]) == ("pre-key", "one", "default")
    )
    await scene.api.sql("UPDATE session_keys SET d_hi = d_hi # 1 WHERE sid = $1 AND kh = $2", row["sid"], row["kh"])
    async with scene.api.unchanged():
        answer = await scene.api.ask("POST", at("one", "commit"), {"keys": {"pre-key": ROWS["pre-key"]}})
        assert (answer.status, answer.slug) == (500, "corrupt")


@pytest.mark.parametrize("left", [2000, 4000, 3, 0])
async def test_a_streamed_state_is_proven_however_many_rows_are_left(own_api: Api, left: int):
    """The row count is made to fit, so that only the mark can tell."""
    await own_api.good("PUT", at("large", "state"), {"keys": {"t": {str(n): n for n in range(4500)}}})
    await own_api.sql("DELETE FROM session_keys WHERE kh IN (SELECT kh FROM session_keys ORDER BY kh OFFSET $1)", left)
    await own_api.sql("UPDATE sessions SET row_count = $1", left)
    try:
        answer = await own_api.ask("GET", at("large", "state"))
    except (OSError, ClientError):
        return  # cut off before its end
    assert (answer.status, answer.slug) == (500, "corrupt")


async def test_a_master_key_nobody_has_is_no_absence(scene: Scene):
    await scene.api.sql("UPDATE sessions SET master_key_id = repeat('0', 16) WHERE sid = $1", sid_of("one"))
    async with serve(scene.api.url) as fresh, fresh.unchanged():
        for method, call, body in (
            ("GET", "state", None),
            ("GET", "creds", None),
            ("POST", "keys/get", {"session": ["a"]}),
            ("POST", "commit", {"creds": creds(), "reset": True}),
        ):
            answer = await fresh.ask(method, at("one", call), body)
            assert (answer.status, answer.slug) == (503, "unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
