"""Any table of Postgres that keeps one row a key: described by ``--map``, or Prisma's ``Session(sessionId, id, data)``.

Sessions and names are compared as text, whatever their columns' types, and written in those types. No unique key is needed.
Prisma's is that of ``@ookamiiixd/baileys-store``, ``whatsapp-store-db`` and their kin: names as in multi-file stores.
Statements are put together once from the layout; names of tables and columns are quoted, values always parameters.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Final

from protocol.repairs import mistyped, spelled
from protocol.spelling import CREDS
from service.migrate.source import Fault, FaultKind, Found, SourceError, SourceRow, Within, Write, WrongSource
from service.migrate.sources import Layout
from service.migrate.sources.layout import TableLayout, table_layout
from service.migrate.sources.names import for_jsonb, name_of, put_creds, put_named, put_row
from service.migrate.sources.postgres import Catalog, Connection, PostgresSource

PRISMA: Final = TableLayout(table="Session", session="sessionId", value="data", name="id", mangled=True)

COLUMNS_SQL: Final = """
SELECT attname::text AS name, format_type(atttypid, NULL) AS type FROM pg_attribute
WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
"""
_TEXTS: Final = frozenset({"text", "character varying"})
_VALUES: Final = _TEXTS | {"character", "json", "jsonb", "bytea"}
_DATES: Final = _TEXTS | {"timestamp with time zone", "timestamp without time zone", "date"}
_NOW: Final = frozenset({"timestamp with time zone", "timestamp without time zone"})
# As a cast "character" is one character; a cast of it to text leaves the padding out.
_CASTS: Final = {"character": "bpchar"}


@dataclass(frozen=True, slots=True)
class _Table:
    """The statements of one table. Parameters: the session, then arrays of each column that names a row, then values."""

    sessions: str
    rows: str
    mark: str
    creds: str | None
    """Names of the rows of type $2, where a type is a column. None: the row of the creds has one name."""
    wipe: str
    delete: str
    update: str
    insert: str


class TablePostgres(PostgresSource):
    """Sessions are named by the layout's session column."""

    kind: ClassVar[str] = "table-postgres"
    table: TableLayout
    stamp: ClassVar[str | None] = None
    """A column that its own writer sets to the time of a write, where there is one."""

    def __init__(self, url: str, layout: Layout | None) -> None:
        super().__init__(url, layout)
        if layout is not None:
            self.table = table_layout(layout)
        self._keys: _Table
        self._creds: _Table | None = None
        self._jsonb = self._creds_jsonb = False

    @property
    def within(self) -> Within:
        return {**super().within, "table": asdict(self.table)}

    @property
    def tables(self) -> Sequence[str]:
        return [_table(each.table) for each in (self.table, self.table.creds_table) if each is not None]

    @classmethod
    def matches(cls, catalog: Catalog) -> bool:
        del catalog
        return False  # only when a map describes it

    async def learn(self, connection: Connection) -> None:
        table, own = self.table, self.table.creds_table
        types = await _columns(connection, table.table, table.columns)
        if table.expires is not None and types[table.expires] not in _DATES:
            raise WrongSource(f"expiries are {types[table.expires]} and should be a timestamp, a date or text")
        self._keys = _statements(table.table, table.session, table.named, table.value, table.expires, self.stamp, types)
        self._jsonb = self._creds_jsonb = types[table.value] == "jsonb"
        self.keep_sql = None if table.expires is None else _keep(table.table, table.session, table.expires, types)
        if own is not None:
            types = await _columns(connection, own.table, {own.session, own.value})
            self._creds_jsonb = types[own.value] == "jsonb"
            self._creds = _statements(own.table, own.session, (), own.value, None, self.stamp, types)

    async def list_sessions(self, connection: Connection) -> AsyncIterator[str]:
        both = [self._keys.sessions] + ([self._creds.sessions] if self._creds else [])
        async for record in connection.cursor(f"{' UNION '.join(both)} ORDER BY 1", prefetch=500):
            yield record["session"]

    async def read(self, connection: Connection, session: str) -> Found:
        found = Found()
        if self._creds is not None and self.table.creds_table is not None:
            for record in await connection.fetch(self._creds.rows, session):
                self._put_creds(found, record["value"], self.table.creds_table.table)
        for record in await connection.fetch(self._keys.rows, session):
            self._take(found, record)
        return found

    async def mark(self, connection: Connection, session: str) -> str:
        marks = [await connection.fetchval(self._keys.mark, session)]
        if self._creds is not None:
            marks.append(await connection.fetchval(self._creds.mark, session))
        return "/".join(marks)

    async def apply(
        self, connection: Connection, session: str, creds: bytes | None, rows: Sequence[Write], *, whole: bool
    ) -> None:
        own = await self._creds_name(connection, session)
        if whole:
            for table in filter(None, (self._keys, self._creds)):
                await connection.execute(table.wipe, session)
        gone = [name for row in rows if row.text is None for name in self._names(row.ktype, row.key_id)]
        if gone:
            await connection.execute(self._keys.delete, session, *zip(*gone, strict=True))
        put = [
            (*self._name(row.ktype, row.key_id), self._spelled(row.ktype, row.text))
            for row in rows
            if row.text is not None
        ]
        if len({tuple(names) for *names, _ in put}) < len(put):
            raise SourceError("two keys would be one row there: nothing was written")
        if creds is not None and self._creds is None:
            put.append((*own, self._spelled(CREDS, creds)))
        elif creds is not None and self._creds is not None:
            await _upsert(connection, self._creds, session, [(self._spelled(CREDS, creds),)])
        await _upsert(connection, self._keys, session, put)

    def _take(self, found: Found, record: Any) -> None:
        table = self.table
        names: list[str] = [record[f"name{at}"] for at in range(len(table.named))]
        where = f"{table.table} ({', '.join(map(str, names))})"
        if table.creds_table is None and names[0] == table.creds:
            self._put_creds(found, record["value"], where)
        elif None in names or record["value"] is None:
            found.faults.append(Fault(FaultKind.foreign, where, "a row without a name or a value"))
        elif table.name is not None:
            put_named(
                found, names[0], _raw(record["value"]), where, mangled=table.mangled, expires_at=record["expires"]
            )
        else:
            put_row(found, SourceRow(names[0], names[1], _raw(record["value"]), record["expires"], where))

    @staticmethod
    def _put_creds(found: Found, value: str | bytes | None, where: str) -> None:
        put_creds(found, b"" if value is None else _raw(value), where)

    def _name(self, ktype: str, key_id: str) -> tuple[str, ...]:
        if self.table.name is None:
            return ktype, key_id
        return (name_of(ktype, key_id, mangled=self.table.mangled),)

    def _names(self, ktype: str, key_id: str) -> Iterable[tuple[str, ...]]:
        """Everything that would be taken for the key."""
        yield self._name(ktype, key_id)
        if self.table.name is None:
            twin = mistyped(ktype, key_id)
            yield twin.ktype, twin.key_id

    async def _creds_name(self, connection: Connection, session: str) -> tuple[str, ...]:
        """Of the row that was found: with type and id its id may be anything, and its reader looks for that."""
        found: Sequence[Any] = ()
        if self._keys.creds is not None and self._creds is None:
            found = await connection.fetch(self._keys.creds, session, self.table.creds)
        if len(found) > 1:
            raise SourceError("the session has several rows of creds there, and which is read cannot be told")
        return tuple(found[0]) if found else (self.table.creds,) * len(self.table.named)

    def _spelled(self, ktype: str, text: bytes) -> str:
        written = spelled(ktype, text, self.table.spelling)
        jsonb = self._creds_jsonb if ktype == CREDS else self._jsonb
        return for_jsonb(ktype, written) if jsonb else written.decode()


class PrismaPostgres(TablePostgres):
    """Prisma's table under its usual name."""

    kind: ClassVar[str] = "prisma"
    table = PRISMA

    @classmethod
    def matches(cls, catalog: Catalog) -> bool:
        return catalog.get(PRISMA.table, frozenset()) >= PRISMA.columns


def _raw(value: str | bytes) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


async def _upsert(connection: Connection, table: _Table, session: str, rows: Sequence[tuple[str, ...]]) -> None:
    """Not every table has the constraint that ON CONFLICT needs."""
    if rows:
        columns = list(zip(*rows, strict=True))
        await connection.execute(table.update, session, *columns)
        await connection.execute(table.insert, session, *columns)


async def _columns(connection: Connection, table: str, needed: Iterable[str]) -> dict[str, str]:
    """Types of the columns by name. WrongSource when one that is needed is not there."""
    found = {record["name"]: record["type"] for record in await connection.fetch(COLUMNS_SQL, _table(table))}
    if not found:
        raise WrongSource("the table of --map is not in this database")
    if missing := sorted(set(needed) - found.keys()):
        raise WrongSource(f"the table of --map has no column {', '.join(missing)}")
    return found


def _statements(
    table: str,
    session: str,
    named: Sequence[str],
    value: str,
    expires: str | None,
    stamp: str | None,
    types: dict[str, str],
) -> _Table:
    if types[value] not in _VALUES:
        raise WrongSource(f"values are {types[value]} and should be text, json, jsonb or bytea")
    name = _table(table)
    whose = _text(session, types)
    mine = f"{whose} = $1"
    names = [f"put.n{at}" for at in range(len(named))]
    arrays = ", ".join(f"${at + 2}::text[]" for at in range(len(named) + 1))
    put = f"unnest({arrays}) AS put({', '.join(f'n{at}' for at in range(len(named)))}{', ' if named else ''}value)"
    gone = ", ".join(f"${at + 2}::text[]" for at in range(len(named)))
    same = "".join(f" AND t.{_text(column, types)} = {given}" for column, given in zip(named, names, strict=True))
    new = {"bytea": "convert_to(put.value, 'UTF8')", "json": "put.value::json", "jsonb": "put.value::jsonb"}
    given = new.get(types[value], "put.value")
    selected = "".join(f"{_text(column, types)} AS name{at}, " for at, column in enumerate(named))
    shown = _quoted(value) if types[value] == "bytea" else f"{_quoted(value)}::text"
    lists = ", ".join(map(_quoted, (session, *named, value)))
    casts = ", ".join(
        (f"$1::text::{_type(session, types)}", *(f"{n}::{_type(c, types)}" for c, n in zip(named, names, strict=True)))
    )
    set_too = "" if expires is None else f", {_quoted(expires)} = NULL"
    put_too = given_too = ""
    if stamp is not None and types.get(stamp) in _NOW:
        set_too += f", {_quoted(stamp)} = now()"
        put_too, given_too = f", {_quoted(stamp)}", ", now()"
    ordered = f" ORDER BY {', '.join(str(at + 1) for at in range(len(named)))}" if named else ""
    keyed = ", ".join(["'r'", *(f"{_text(column, types)}" for column in named), "xmin::text"])
    return _Table(
        sessions=f"SELECT DISTINCT {whose} AS session FROM {name} WHERE {_quoted(session)} IS NOT NULL",
        rows=f"SELECT {selected}{shown} AS value, {_until(expires)} AS expires FROM {name} WHERE {mine}{ordered}",
        mark="SELECT concat_ws('/', count(*), sum(hashtextextended(concat_ws(chr(1), "
        f"{keyed}), 0)::numeric)) FROM {name} WHERE {mine}",
        creds=f"SELECT {selected.removesuffix(', ')} FROM {name} WHERE {mine} AND {_text(named[0], types)} = $2"
        if len(named) > 1
        else None,
        wipe=f"DELETE FROM {name} WHERE {mine}",
        delete=f"DELETE FROM {name} t USING unnest({gone}) AS put({', '.join(n[4:] for n in names)}) "
        f"WHERE t.{mine}{same}",
        update=f"UPDATE {name} t SET {_quoted(value)} = {given}{set_too} FROM {put} WHERE t.{mine}{same}",
        insert=f"INSERT INTO {name} ({lists}{put_too}) SELECT {casts}, {given}{given_too} FROM {put} "
        f"WHERE NOT EXISTS (SELECT FROM {name} t WHERE t.{mine}{same})",
    )


def _keep(table: str, session: str, expires: str, types: dict[str, str]) -> str:
    until = _quoted(expires)
    return (
        f"UPDATE {_table(table)} SET {until} = NULL WHERE {_text(session, types)} = $1 AND {until} IS NOT NULL "
        f"AND ($2::boolean OR {until}::timestamptz >= now())"
    )


def _until(expires: str | None) -> str:
    """When a row is forgotten, as Python can hold it: ``infinity`` is never, and what lies before its first year is past."""
    if expires is None:
        return "NULL::timestamptz"
    at, first = f"{_quoted(expires)}::timestamptz", "timestamptz '0001-01-02 00:00+00'"
    return f"CASE WHEN {at} < {first} THEN {first} WHEN {at} < timestamptz '9999-12-30 00:00+00' THEN {at} END"


def _type(column: str, types: dict[str, str]) -> str:
    return _CASTS.get(types[column], types[column])


def _text(column: str, types: dict[str, str]) -> str:
    """The column as text; as it is where it is text already, so that its index can be used."""
    return _quoted(column) if types[column] in _TEXTS else f"{_quoted(column)}::text"


def _table(name: str) -> str:
    schema, dot, table = name.partition(".")
    return f"{_quoted(schema)}.{_quoted(table)}" if dot else _quoted(name)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
