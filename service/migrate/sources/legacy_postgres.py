"""The tables of the store this project replaces: ``whatsapp_auth(company_id, creds)`` and
``whatsapp_keys(company_id, key_type, key_id, value, expires_at)``, values in jsonb.

Its documentation shows two other layouts that never existed anywhere (``session_data``, ``key_data``); a database made from
them is refused by name. Its live code writes every Buffer as a list of octets and reads that and base64, so octets is
what a mirror or a rollback writes. A deleted key takes its mis-typed twin with it: one left behind would come back to
life at the next look.
"""

from collections.abc import AsyncIterator, Sequence
from typing import ClassVar, Final

from protocol.repairs import mistyped, spelled
from protocol.spelling import CREDS, Spelling
from service.migrate.source import Found, SourceRow, Write, WrongSource
from service.migrate.sources.names import for_jsonb
from service.migrate.sources.postgres import Catalog, Connection, PostgresSource

_AUTH: Final = frozenset({"company_id", "creds"})
_KEYS: Final = frozenset({"company_id", "key_type", "key_id", "value", "expires_at"})
_NEVER: Final = ("session_data", "key_data")

SESSIONS_SQL: Final = """
SELECT company_id FROM whatsapp_auth UNION SELECT company_id FROM whatsapp_keys ORDER BY 1
"""
CREDS_SQL: Final = "SELECT creds::text FROM whatsapp_auth WHERE company_id = $1"
KEYS_SQL: Final = """
SELECT key_type, key_id, value::text AS value, expires_at FROM whatsapp_keys WHERE company_id = $1 ORDER BY key_type, key_id
"""
# xmin is the transaction that wrote the row's present version: it changes with every insert and update, and a delete takes
# its row out of the sum. updated_at would miss writers that do not set it.
MARK_SQL: Final = """
SELECT concat_ws('/', count(*), sum(hashtextextended(concat_ws(chr(1), kind, key_type, key_id, xmin::text), 0)::numeric)) FROM (
    SELECT 'k' AS kind, key_type, key_id, xmin FROM whatsapp_keys WHERE company_id = $1
    UNION ALL SELECT 'a', '', '', xmin FROM whatsapp_auth WHERE company_id = $1
) AS rows
"""
WIPE_SQL: Final = """
WITH auth AS (DELETE FROM whatsapp_auth WHERE company_id = $1) DELETE FROM whatsapp_keys WHERE company_id = $1
"""
DELETE_SQL: Final = """
DELETE FROM whatsapp_keys k USING unnest($2::text[], $3::text[]) AS gone(key_type, key_id)
WHERE k.company_id = $1 AND k.key_type = gone.key_type AND k.key_id = gone.key_id
"""
# A row written back never expires: the old clean-up job would take live keys by a date that was set for older ones.
PUT_SQL: Final = """
INSERT INTO whatsapp_keys (company_id, key_type, key_id, value, updated_at, expires_at)
SELECT $1, put.key_type, put.key_id, put.value::jsonb, now(), NULL
FROM unnest($2::text[], $3::text[], $4::text[]) AS put(key_type, key_id, value)
ON CONFLICT (company_id, key_type, key_id) DO UPDATE SET value = excluded.value, updated_at = now(), expires_at = NULL
"""
KEEP_SQL: Final = """
UPDATE whatsapp_keys SET expires_at = NULL
WHERE company_id = $1 AND expires_at IS NOT NULL AND ($2::boolean OR expires_at >= now())
"""
CREDS_PUT_SQL: Final = """
INSERT INTO whatsapp_auth (company_id, creds, updated_at) VALUES ($1, $2::text::jsonb, now())
ON CONFLICT (company_id) DO UPDATE SET creds = excluded.creds, updated_at = now()
"""


class LegacyPostgres(PostgresSource):
    """Sessions are named by ``company_id``."""

    kind: ClassVar[str] = "legacy-postgres"
    keep_sql = KEEP_SQL

    @classmethod
    def matches(cls, catalog: Catalog) -> bool:
        auth, keys = catalog.get("whatsapp_auth"), catalog.get("whatsapp_keys")
        if auth is None and keys is None:
            return False
        for column in _NEVER:
            if column in (auth or ()) or column in (keys or ()):
                raise WrongSource(
                    f"whatsapp_auth and whatsapp_keys have a column {column}: this is the layout of the old guides, which the "
                    "old code never used. The real one has whatsapp_auth.creds and whatsapp_keys.value"
                )
        for table, has, needs in (("whatsapp_auth", auth, _AUTH), ("whatsapp_keys", keys, _KEYS)):
            if has is None:
                raise WrongSource(f"the table {table} is gone")
            if missing := needs - has:
                raise WrongSource(f"{table} has no column {', '.join(sorted(missing))}")
        return True

    async def list_sessions(self, connection: Connection) -> AsyncIterator[str]:
        async for record in connection.cursor(SESSIONS_SQL, prefetch=500):
            yield record["company_id"]

    async def read(self, connection: Connection, session: str) -> Found:
        creds = await connection.fetchval(CREDS_SQL, session)
        rows = [
            SourceRow(
                record["key_type"],
                record["key_id"],
                record["value"].encode(),
                record["expires_at"],
                f"whatsapp_keys ({record['key_type']}, {record['key_id']})",
            )
            for record in await connection.fetch(KEYS_SQL, session)
        ]
        return Found(None if creds is None else creds.encode(), rows)

    async def mark(self, connection: Connection, session: str) -> str:
        return str(await connection.fetchval(MARK_SQL, session))

    async def apply(
        self, connection: Connection, session: str, creds: bytes | None, rows: Sequence[Write], *, whole: bool
    ) -> None:
        if whole:
            await connection.execute(WIPE_SQL, session)
        gone = [(row.ktype, row.key_id) for row in rows if row.text is None]
        twins = [(twin.ktype, twin.key_id) for twin in (mistyped(*name) for name in gone)]
        if gone:
            await connection.execute(DELETE_SQL, session, *zip(*(gone + twins), strict=True))
        put = [(row.ktype, row.key_id, _octets(row.ktype, row.text)) for row in rows if row.text is not None]
        if put:
            await connection.execute(PUT_SQL, session, *zip(*put, strict=True))
        if creds is not None:
            await connection.execute(CREDS_PUT_SQL, session, _octets(CREDS, creds))


def _octets(ktype: str, text: bytes) -> str:
    return for_jsonb(ktype, spelled(ktype, text, Spelling.octets))
