"""The tables of the store this project replaces: ``whatsapp_auth(company_id, creds)`` and
``whatsapp_keys(company_id, key_type, key_id, value, expires_at)``, values in jsonb.

They are read and written as `table_postgres` does any table: there are ones with other types of columns, and without the key
that its own writer counted on.

Its documentation shows two other layouts that never existed anywhere (``session_data``, ``key_data``); a database made from
them is refused by name. Its live code writes every Buffer as a list of octets and reads that and base64, so octets is
what a mirror or a rollback writes. A deleted key takes its mis-typed twin with it: one left behind would come back to
life at the next look. A row written back never expires: the old clean-up job would take live keys by a date that was set
for older ones.
"""

from typing import ClassVar, Final

from protocol.spelling import Spelling
from service.migrate.source import Within, WrongSource
from service.migrate.sources.layout import CredsTable, TableLayout
from service.migrate.sources.postgres import Catalog
from service.migrate.sources.table_postgres import TablePostgres

TABLE: Final = TableLayout(
    table="whatsapp_keys",
    session="company_id",
    value="value",
    ktype="key_type",
    key_id="key_id",
    creds_table=CredsTable(table="whatsapp_auth", session="company_id", value="creds"),
    expires="expires_at",
    spelling=Spelling.octets,
)
_NEEDED: Final = (
    ("whatsapp_auth", frozenset({"company_id", "creds"})),
    ("whatsapp_keys", TABLE.columns),
)
_NEVER: Final = ("session_data", "key_data")


class LegacyPostgres(TablePostgres):
    """Sessions are named by ``company_id``."""

    kind: ClassVar[str] = "legacy-postgres"
    table = TABLE
    stamp = "updated_at"

    @property
    def within(self) -> Within:
        return super(TablePostgres, self).within  # it has one layout, and runs of earlier releases called it so

    @classmethod
    def matches(cls, catalog: Catalog) -> bool:
        found = [catalog.get(table) for table, _ in _NEEDED]
        if found == [None, None]:
            return False
        for column in _NEVER:
            if any(column in (has or ()) for has in found):
                raise WrongSource(
                    f"whatsapp_auth and whatsapp_keys have a column {column}: this is the layout of the old guides, which the "
                    "old code never used. The real one has whatsapp_auth.creds and whatsapp_keys.value"
                )
        for (table, needs), has in zip(_NEEDED, found, strict=True):
            if has is None:
                raise WrongSource(f"the table {table} is gone")
            if missing := needs - has:
                raise WrongSource(f"{table} has no column {', '.join(sorted(missing))}")
        return True
