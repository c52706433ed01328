"""The shop's tables as a source, in a real Postgres with the live schema."""

import asyncio
import json
import re
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest
from external_postgres import ExternalPostgres
from late_link import LateLink
from migrating import CALLER, open_store, run_copy, run_verify, shop, shop_scene
from source_contract import CREDS, KEYS, PAIR, Rig, SourceContract, same, text

from protocol.digest import digest
from protocol.spelling import Spelling, respell
from service.errors import NoSession
from service.migrate.cutover import Cutover, cutover
from service.migrate.origin import Origin
from service.migrate.plan import Options
from service.migrate.report import Folder, Report
from service.migrate.runs import Run
from service.migrate.source import Source, SourceError, SourceRefused, Write, WrongSource
from service.migrate.sources import open_source, postgres
from service.store import AuthStore

SCHEMA = (Path(__file__).parent.parent / "fixtures" / "legacy" / "schema.sql").read_text()


class LegacyRig(Rig):
    """Filled as its live code did: ``JSON.stringify`` without BufferJSON."""

    def __init__(self, url: str, connection: Any) -> None:
        self.url = url
        self.connection = connection

    async def fill(self, session: str, creds: Any, keys: dict[tuple[str, str], Any]) -> None:
        await self.connection.execute(
            "INSERT INTO whatsapp_auth (company_id, creds) VALUES ($1, $2::text::jsonb)", session, octets("", creds)
        )
        await self.connection.executemany(
            "INSERT INTO whatsapp_keys (company_id, key_type, key_id, value) VALUES ($1, $2, $3, $4::text::jsonb)",
            [(session, ktype, key_id, octets(ktype, value)) for (ktype, key_id), value in keys.items()],
        )

    async def touch(self, session: str) -> None:
        done = await self.connection.execute(
            "UPDATE whatsapp_keys SET value = '\"100000000000009\"' WHERE company_id = $1 AND key_type = 'lid-mapping'",
            session,
        )
        assert done != "UPDATE 0"

    async def contents(self) -> Any:
        return [
            await self.connection.fetch(f"SELECT t.*, xmin, ctid FROM {table} t ORDER BY ctid")
            for table in ("whatsapp_auth", "whatsapp_keys")
        ]

    @asynccontextmanager
    async def source(self) -> AsyncIterator[Source]:
        async with await open_source(self.url) as source:
            yield source

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[Source]:
        async with await open_source("postgresql://nobody@127.0.0.1:1/nothing") as source:
            yield source


def octets(ktype: str, value: Any) -> str:
    return json.dumps(respell(ktype, value, Spelling.octets))


@pytest.fixture
async def legacy(database_url: str) -> AsyncIterator[LegacyRig]:
    connection = await asyncpg.connect(database_url)
    await connection.execute(SCHEMA)
    yield LegacyRig(database_url, connection)
    await connection.close()


class TestLegacyPostgres(SourceContract):
    @pytest.fixture
    async def rig(self, legacy: LegacyRig) -> LegacyRig:
        return legacy

    async def test_it_writes_as_the_old_code_does_and_without_expiry(self, legacy: LegacyRig) -> None:
        await legacy.fill("one", CREDS, {("pre-key", "1"): PAIR})
        await legacy.connection.execute("UPDATE whatsapp_keys SET expires_at = now() - interval '1 day'")
        async with legacy.source() as source:
            await source.write("one", text(CREDS), [Write("pre-key", "1", text({**PAIR, "private": PAIR["public"]}))])
        row = await legacy.connection.fetchrow("SELECT value, expires_at FROM whatsapp_keys")
        assert json.loads(row["value"])["private"] == {"type": "Buffer", "data": list(range(2, 34))}
        assert row["expires_at"] is None
        creds = json.loads(await legacy.connection.fetchval("SELECT creds FROM whatsapp_auth"))
        assert creds["signedIdentityKey"]["public"]["data"] == list(range(2, 34))

    @pytest.mark.parametrize("later", ["deleted", "put"])
    async def test_a_write_that_was_called_off_does_not_arrive_after_a_later_one(
        self, legacy: LegacyRig, monkeypatch: pytest.MonkeyPatch, later: str
    ) -> None:
        monkeypatch.setattr(postgres, "_UNDO_S", 0.2)
        await legacy.fill("one", CREDS, {})
        name, newer = ("pre-key", "9"), None if later == "deleted" else {**PAIR, "n": 2}
        where = urlsplit(legacy.url)
        socket = parse_qs(where.query)
        async with LateLink(f"{socket['host'][0]}/.s.PGSQL.{socket['port'][0]}") as link:
            through = f"postgresql://postgres@127.0.0.1:{link.port}{where.path}?sslmode=disable"
            async with await open_source(through) as source, legacy.source() as again:
                link.hold(b"COMMIT")
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await source.write("one", None, [Write(*name, text(PAIR))])
                assert link.held.is_set()
                newer_text = None if newer is None else text(newer)
                writing = asyncio.create_task(again.write("one", None, [Write(*name, newer_text)]))
                await asyncio.wait([writing], timeout=0.5)
                await link.deliver()
                await writing
                async with again.snapshot() as snapshot:
                    same(await snapshot.read("one"), CREDS, {} if newer is None else {name: newer})

    async def test_what_is_kept_no_clean_up_takes(self, legacy: LegacyRig) -> None:
        await legacy.fill("one", CREDS, KEYS)
        await legacy.fill("two", CREDS, KEYS)
        await legacy.connection.execute("UPDATE whatsapp_keys SET expires_at = now() + interval '1 day'")
        past = "UPDATE whatsapp_keys SET expires_at = now() - interval '1 day' WHERE key_type = 'pre-key'"
        await legacy.connection.execute(past)
        left = "SELECT count(*) FROM whatsapp_keys WHERE company_id = $1 AND expires_at IS NOT NULL"
        async with legacy.source() as source:
            await source.keep("one", expired=False)
            assert await legacy.connection.fetchval(left, "one") == 2
            await source.keep("one")
            async with source.snapshot() as snapshot:
                same(await snapshot.read("one"), CREDS, KEYS)
        assert await legacy.connection.fetchval(left, "one") == 0
        assert await legacy.connection.fetchval(left, "two") == len(KEYS)

    @pytest.mark.parametrize("policy", ["key_type <> 'session'", "company_id = 'x'", None])
    async def test_rows_that_a_policy_hides_are_an_error_and_not_absent(
        self, legacy: LegacyRig, policy: str | None
    ) -> None:
        await legacy.fill("one", CREDS, KEYS)
        await legacy.connection.execute(
            "CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA public TO reader;"
            "GRANT SELECT ON whatsapp_auth, whatsapp_keys TO reader; DROP POLICY whatsapp_keys_all ON whatsapp_keys"
        )
        if policy is not None:
            await legacy.connection.execute(f"CREATE POLICY hiding ON whatsapp_keys FOR SELECT USING ({policy})")
        try:
            async with await open_source(f"{legacy.url}&role=reader") as source, source.snapshot() as snapshot:
                with pytest.raises(SourceRefused, match="row-level security"):
                    await snapshot.read("one")
        finally:
            await legacy.connection.execute("DROP OWNED BY reader; DROP ROLE reader")

    async def test_a_policy_that_lets_everybody_see_everything_hides_nothing(self, legacy: LegacyRig) -> None:
        await legacy.fill("one", CREDS, KEYS)
        await legacy.connection.execute(
            "CREATE ROLE reader LOGIN; GRANT USAGE ON SCHEMA public TO reader;"
            "GRANT SELECT ON whatsapp_auth, whatsapp_keys TO reader"
        )
        try:
            async with await open_source(f"{legacy.url}&role=reader") as source, source.snapshot() as snapshot:
                same(await snapshot.read("one"), CREDS, KEYS)
        finally:
            await legacy.connection.execute("DROP OWNED BY reader; DROP ROLE reader")

    async def test_half_a_character_in_a_display_name_is_carried_and_elsewhere_told(self, legacy: LegacyRig) -> None:
        cut = {**CREDS, "me": {**CREDS["me"], "name": "Zo\ud83d", "id": "\ud83e\udd89"}}
        other = Write("session", "1.0", json.dumps({"x": "\ud83d"}).encode())
        null = Write("session", "1.0", json.dumps({"x": "\\\0"}).encode())
        plain = Write("session", "1.0", json.dumps({"x": "\\u0000 \\ud83d"}).encode())
        async with legacy.source() as source:
            await source.write("one", json.dumps(cut).encode(), [plain], whole=True)
            for refused in (other, null):
                with pytest.raises(SourceError, match="session hold half of a character"):
                    await source.write("one", None, [refused])
            async with source.snapshot() as snapshot:
                found = await snapshot.read("one")
        assert found.creds is not None
        assert json.loads(found.creds)["me"]["name"] == "Zo\ufffd"
        assert digest("", found.creds) == digest("", json.dumps(cut).encode())
        assert [json.loads(row.text) for row in found.rows] == [{"x": "\\u0000 \\ud83d"}]

    async def test_an_error_of_the_reader_is_not_taken_for_the_sources(self, legacy: LegacyRig) -> None:
        async with legacy.source() as source:
            with pytest.raises(OSError, match="disk is full"):
                async with source.snapshot():
                    raise OSError("the disk is full")

    async def test_no_statement_is_left_that_a_pooler_would_not_know_again(self, legacy: LegacyRig) -> None:
        await legacy.fill("one", CREDS, KEYS)
        async with legacy.source() as source:
            assert isinstance(source, postgres.PostgresSource)
            for _ in range(2):
                await source.fingerprint("one")
                await source.write("one", text(CREDS), [Write("pre-key", "1", text(PAIR))])
            connection = await source._connection()
            assert await connection.fetch("SELECT name FROM pg_prepared_statements") == []

    async def test_a_table_that_is_gone_is_told(self, legacy: LegacyRig) -> None:
        async with legacy.source() as source:
            await legacy.connection.execute("ALTER TABLE whatsapp_keys RENAME TO away")
            with pytest.raises(WrongSource, match="table of the source is gone"):
                await source.write("one", None, [Write("pre-key", "1", None)])
        with pytest.raises(WrongSource, match="table whatsapp_keys is gone"):
            await open_source(legacy.url)

    async def test_a_deleted_key_takes_its_mistyped_twin_along(self, legacy: LegacyRig) -> None:
        group = "120363000000000001@g.us"
        twins = {
            ("pre", "key-12"): PAIR,
            ("lid", "mapping-15550100002"): "1",
            ("sender", f"key-{group}--15550100002--0"): {"type": "Buffer", "data": "W10="},
            ("app", "state-sync-key-AAAAAEx__"): {"keyData": "AQID"},
        }
        await legacy.fill("one", CREDS, {**KEYS, **twins})
        gone = [
            ("pre-key", "12"),
            ("lid-mapping", "15550100002"),
            ("sender-key", f"{group}::15550100002::0"),
            ("app-state-sync-key", "AAAAAEx/"),
        ]
        async with legacy.source() as source:
            await source.write("one", None, [Write(*name, None) for name in gone])
            async with source.snapshot() as snapshot:
                left = {(row.ktype, row.key_id) for row in (await snapshot.read("one")).rows}
        assert left == set(KEYS) - set(gone)

    @pytest.mark.parametrize(
        "tables",
        [
            "CREATE TABLE whatsapp_auth (id serial, session_data jsonb)",
            "CREATE TABLE whatsapp_keys (id text, key_data jsonb)",
            "CREATE TABLE whatsapp_auth (company_id text, creds jsonb); CREATE TABLE whatsapp_keys (company_id text)",
            "CREATE TABLE something_else (id int)",
        ],
    )
    async def test_other_layouts_are_refused(self, database_url: str, tables: str) -> None:
        connection = await asyncpg.connect(database_url)
        await connection.execute(tables)
        await connection.close()
        with pytest.raises(WrongSource):
            await open_source(database_url)

    async def test_a_refused_user_is_told_apart_from_a_server_that_is_away(self, legacy: LegacyRig) -> None:
        await legacy.connection.execute("CREATE ROLE stranger LOGIN")
        try:
            url = re.sub("//[^/?]*@?/", "//stranger@/", legacy.url, count=1)
            with pytest.raises(SourceRefused):
                async with await open_source(url) as source, source.snapshot() as snapshot:
                    await snapshot.read("one")
        finally:
            await legacy.connection.execute("DROP OWNED BY stranger; DROP ROLE stranger")


ODD = {
    "no keys": "ALTER TABLE whatsapp_keys DROP CONSTRAINT whatsapp_keys_pkey;"
    " ALTER TABLE whatsapp_auth DROP CONSTRAINT whatsapp_auth_pkey",
    "no stamp": "DROP TRIGGER whatsapp_keys_updated_at ON whatsapp_keys; ALTER TABLE whatsapp_keys DROP updated_at;"
    " DROP TRIGGER whatsapp_auth_updated_at ON whatsapp_auth; ALTER TABLE whatsapp_auth DROP updated_at",
    "other types": "ALTER TABLE whatsapp_keys ALTER expires_at TYPE timestamp, ALTER key_id TYPE char(80),"
    " ALTER company_id TYPE varchar(40), ALTER updated_at TYPE timestamp; ALTER TABLE whatsapp_auth ALTER creds TYPE json",
    "text": "ALTER TABLE whatsapp_keys ALTER expires_at TYPE date, ALTER value TYPE text, ALTER company_id TYPE char(20);"
    " ALTER TABLE whatsapp_auth ALTER creds TYPE text",
}


class TestOddLegacyPostgres(SourceContract):
    """Tables that were made by hand, from what the old code reads and writes."""

    @pytest.fixture(params=ODD)
    async def rig(self, legacy: LegacyRig, request: pytest.FixtureRequest) -> LegacyRig:
        await legacy.connection.execute(ODD[request.param])
        return legacy

    async def test_expiries_are_read_and_cleared(self, rig: LegacyRig) -> None:
        await rig.fill("one", CREDS, KEYS)
        await rig.connection.execute("UPDATE whatsapp_keys SET expires_at = '2020-02-03'")
        async with rig.source() as source:
            async with source.snapshot() as snapshot:
                at = {row.expires_at for row in (await snapshot.read("one")).rows}
            assert at == {datetime(2020, 2, 3, tzinfo=UTC)}
            await source.keep("one", expired=False)
            await source.write("one", None, [Write("pre-key", "1", text(PAIR))])
            assert await rig.connection.fetchval("SELECT count(expires_at) FROM whatsapp_keys") == len(KEYS) - 1
            await source.keep("one")
            assert await rig.connection.fetchval("SELECT count(expires_at) FROM whatsapp_keys") == 0


async def test_a_date_without_end_is_none_and_one_without_beginning_is_past(legacy: LegacyRig) -> None:
    await legacy.fill("one", CREDS, {("pre-key", str(n)): PAIR for n in range(4)})
    for n, at in enumerate(("infinity", "-infinity", "0044-03-15 BC", "99999-01-01")):
        await legacy.connection.execute(f"UPDATE whatsapp_keys SET expires_at = '{at}' WHERE key_id = '{n}'")
    async with legacy.source() as source, source.snapshot() as snapshot:
        found = {row.key_id: row.expires_at for row in (await snapshot.read("one")).rows}
    assert found["0"] is found["3"] is None
    assert found["1"] is not None
    assert found["1"] == found["2"] < datetime(2, 1, 1, tzinfo=UTC)


async def test_sessions_that_are_numbers(legacy: LegacyRig) -> None:
    for table in ("whatsapp_keys", "whatsapp_auth"):
        await legacy.connection.execute(f"ALTER TABLE {table} ALTER company_id TYPE bigint USING 1")
    async with legacy.source() as source:
        await source.rehearse("900001", text(CREDS))
        await source.write(
            "900001", text(CREDS), [Write(*name, text(value)) for name, value in KEYS.items()], whole=True
        )
        async with source.snapshot() as snapshot:
            assert [name async for name in snapshot.sessions()] == ["900001"]
            same(await snapshot.read("900001"), CREDS, KEYS)
    assert await legacy.connection.fetchval("SELECT count(*) FROM whatsapp_keys WHERE company_id = 900001") == len(KEYS)


async def test_an_expiry_that_is_no_date_is_told(legacy: LegacyRig) -> None:
    await legacy.connection.execute("ALTER TABLE whatsapp_keys ALTER expires_at TYPE bigint USING 1")
    with pytest.raises(WrongSource, match="expiries are bigint"):
        await open_source(legacy.url)


@asynccontextmanager
async def restricted(connection: Any, *policies: str) -> AsyncIterator[str]:
    """A role that is held to these policies of the shop's tables, and may do anything else."""
    role = f"app_{secrets.token_hex(4)}"
    await connection.execute(f"CREATE ROLE {role} LOGIN")
    try:
        for table in ("whatsapp_keys", "whatsapp_auth"):
            await connection.execute(f"GRANT ALL ON {table} TO {role}; DROP POLICY {table}_all ON {table}")
            for n, policy in enumerate(policies):
                await connection.execute(f"CREATE POLICY p{n} ON {table} {policy}")
        yield role
    finally:
        await connection.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


READS, INSERTS = "FOR SELECT USING (true)", "FOR INSERT WITH CHECK (true)"
UPDATES, DELETES = "FOR UPDATE USING (true)", "FOR DELETE USING (true)"


@pytest.mark.parametrize("missing", [INSERTS, UPDATES, DELETES])
async def test_rows_that_a_policy_keeps_as_they_are_are_an_error(legacy: LegacyRig, missing: str) -> None:
    await legacy.fill("one", CREDS, KEYS)
    before = await legacy.contents()
    policies = [each for each in (READS, INSERTS, UPDATES, DELETES) if each != missing]
    async with (
        restricted(legacy.connection, *policies) as role,
        await open_source(f"{legacy.url}&role={role}") as source,
    ):
        async with source.snapshot() as snapshot:
            same(await snapshot.read("one"), CREDS, KEYS)
        with pytest.raises(SourceRefused):
            await source.rehearse("one", text(CREDS))
        for write in (Write("pre-key", "1", None), Write("pre-key", "1", text({**PAIR, "n": 1}))):
            with suppress(SourceRefused):
                await source.write("one", None, [write])
        if missing != INSERTS:
            assert await legacy.contents() == before


async def test_all_policies_together_let_a_mirror_write(legacy: LegacyRig) -> None:
    await legacy.fill("one", CREDS, KEYS)
    async with (
        restricted(legacy.connection, READS, INSERTS, UPDATES, DELETES) as role,
        await open_source(f"{legacy.url}&role={role}") as source,
    ):
        await source.rehearse("one", text(CREDS))
        await source.write("one", None, [Write("pre-key", "1", None)])


async def test_what_cannot_be_written_back_is_found_before_a_cutover_opens(database_url: str) -> None:
    async with shop_scene(database_url) as scene, restricted(scene.source, READS) as role:
        url = f"{scene.source_url}&role={role}"
        with pytest.raises(SourceError, match=r"a mirror could not write to the source: .*nothing was opened here"):
            await moved(scene.store, url, shop.SESSION, Cutover(stopped=True, watch_s=0, mirror=True))
        with pytest.raises(NoSession):
            await scene.store.show(CALLER, shop.SESSION)
        report = await moved(scene.store, url, shop.SESSION, Cutover(stopped=True, watch_s=0))
    assert report.sessions[0].outcome == "cut-over"
    assert ["a rollback could not write" in note for note in report.notes] == [True]


async def moved(store: AuthStore, url: str, session: str, chosen: Cutover) -> Report:
    async with await open_source(url) as source:
        run = await Run.begin(store, CALLER, "cutover", source.kind, {})
        return await cutover(run, source, Origin(url, session, Options()), chosen, Folder(None), lambda _: None)


async def test_a_standby_is_copied_with_a_note_and_never_cut_over(database_url: str, tmp_path: Path) -> None:
    with ExternalPostgres(tmp_path / "server", {"fsync": "off"}) as server:
        connection = await asyncpg.connect(server.url)
        await connection.execute(SCHEMA)
        await LegacyRig(server.url, connection).fill("one", CREDS, KEYS)
        await connection.close()
        async with await open_source(server.url) as source:
            assert not await source.standby()
        server.become_standby()
        async with open_store(database_url) as store:
            report = await run_copy(store, server.url)
            assert ["standby" in note for note in report.notes] == [True]
            assert ["standby" in note for note in (await run_verify(store, server.url)).notes] == [True]
            async with await open_source(server.url) as source:
                run = await Run.begin(store, CALLER, "cutover", source.kind, {})
                origin = Origin(server.url, "one", Options())
                with pytest.raises(SourceError, match="standby"):
                    await cutover(run, source, origin, Cutover(stopped=True, watch_s=0), Folder(None), lambda _: None)
