"""The table of the npm package ``postgres-baileys``: ``auth_data(session_key, data)``, values as JSON text.

``session_key`` is ``<session>:<type>-<id>``, not mangled, and ``<session>:auth_creds`` (package 1.5.0, ``dist/index.js``).
Buffers are written as lists of octets and read back from nothing else; a ``Uint8Array`` comes out indexed. Which session a
row belongs to is told by what follows it: sessions and ids both may hold a colon.

Without a "C" collation its primary key does not help a search by prefix: each session then costs a walk over the table.
"""

from collections.abc import AsyncIterator, Sequence
from typing import ClassVar, Final

from protocol.repairs import spelled
from protocol.spelling import CREDS, Spelling
from service.migrate.source import Fault, FaultKind, Found, Write
from service.migrate.sources.names import name_of, owner, put_creds, put_named
from service.migrate.sources.postgres import Catalog, Connection, PostgresSource

_CREDS: Final = "auth_creds"

NAMES_SQL: Final = "SELECT session_key FROM auth_data ORDER BY session_key"
ROWS_SQL: Final = "SELECT session_key, data FROM auth_data WHERE session_key LIKE $1 ORDER BY session_key"
MARKS_SQL: Final = (
    "SELECT session_key, xmin::text AS mark FROM auth_data WHERE session_key LIKE $1 ORDER BY session_key"
)
KEYS_SQL: Final = "SELECT session_key FROM auth_data WHERE session_key LIKE $1"
DELETE_SQL: Final = "DELETE FROM auth_data WHERE session_key = ANY($1::text[])"
PUT_SQL: Final = """
INSERT INTO auth_data (session_key, data) SELECT put.* FROM unnest($1::text[], $2::text[]) AS put(session_key, data)
ON CONFLICT (session_key) DO UPDATE SET data = excluded.data
"""


class PostgresBaileys(PostgresSource):
    """Sessions are what stands before the first name of a key."""

    kind: ClassVar[str] = "postgres-baileys"

    @classmethod
    def matches(cls, catalog: Catalog) -> bool:
        return catalog.get("auth_data", frozenset()) >= {"session_key", "data"}

    async def list_sessions(self, connection: Connection) -> AsyncIterator[str]:
        seen: set[str] = set()
        async for record in connection.cursor(NAMES_SQL, prefetch=1000):
            owned = owner(record["session_key"], _CREDS, mangled=False)
            if owned is not None and owned[0] not in seen:
                seen.add(owned[0])
                yield owned[0]

    async def read(self, connection: Connection, session: str) -> Found:
        found = Found()
        for record in await connection.fetch(ROWS_SQL, _prefix(session)):
            where, text = f"auth_data ({record['session_key']})", record["data"].encode()
            owned = owner(record["session_key"], _CREDS, mangled=False)
            if owned is None:
                found.faults.append(Fault(FaultKind.foreign, where, "a name that no key has", text))
            elif owned == (session, _CREDS):
                put_creds(found, text, where)
            elif owned[0] == session:
                put_named(found, owned[1], text, where, mangled=False)
        return found

    async def mark(self, connection: Connection, session: str) -> str:
        records = await connection.fetch(MARKS_SQL, _prefix(session))
        return " ".join(f"{record['session_key']} {record['mark']}" for record in records)

    async def apply(
        self, connection: Connection, session: str, creds: bytes | None, rows: Sequence[Write], *, whole: bool
    ) -> None:
        if whole:
            await connection.execute(DELETE_SQL, await self._keys(connection, session))
        gone = [_key(session, row) for row in rows if row.text is None]
        if gone:
            await connection.execute(DELETE_SQL, gone)
        put = [(_key(session, row), _octets(row.ktype, row.text)) for row in rows if row.text is not None]
        if creds is not None:
            put.append((f"{session}:{_CREDS}", _octets(CREDS, creds)))
        if put:
            await connection.execute(PUT_SQL, *zip(*put, strict=True))

    async def _keys(self, connection: Connection, session: str) -> list[str]:
        """Rows that are this session's and nobody else's."""
        keys = [record["session_key"] for record in await connection.fetch(KEYS_SQL, _prefix(session))]
        return [key for key in keys if (owned := owner(key, _CREDS, mangled=False)) and owned[0] == session]


def _prefix(session: str) -> str:
    """Rows that may be the session's: the package's own clean-up forgets that % and _ mean something here."""
    escaped = session.replace("\\", "\\\\").replace("%", "\\%").replace("_", "\\_")
    return f"{escaped}:%"


def _key(session: str, row: Write) -> str:
    return f"{session}:{name_of(row.ktype, row.key_id, mangled=False)}"


def _octets(ktype: str, text: bytes) -> str:
    return spelled(ktype, text, Spelling.octets).decode()
