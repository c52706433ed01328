"""How a table of one's own keeps sessions: the ``[source]`` table of a ``--map`` file.

    [source]
    table   = "wa_state"         # or "schema.wa_state"
    session = "tenant"           # the column that names the session
    value   = "data"             # JSON as text, json, jsonb or bytes
    name    = "id"               # one column like pre-key-12, creds in the row named creds …
    mangled = true               # … with / as __ and : as -, as in the names of multi-file stores
    # or, instead of name: two columns, creds in rows of type "creds"
    type    = "key_type"
    id      = "key_id"
    # and where it is so:
    creds    = "auth_creds"      # what the row of the creds is called instead
    expires  = "expires_at"      # when a row is forgotten (Postgres only)
    spelling = "octets"          # how to write bytes back: base64 (unless told), octets or indexed

    [source.creds]               # when creds have a table of their own
    table = "wa_creds"
    session = "tenant"
    value = "creds"

``layout = "prisma"`` alone, in place of all this, chooses a known layout where a database holds several.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from protocol.spelling import Spelling
from service.errors import BadInput
from service.migrate.sources import Layout

_TEXTS: Final = frozenset({"table", "session", "value", "name", "type", "id", "expires", "spelling"})
_CREDS_TEXTS: Final = frozenset({"table", "session", "value"})


@dataclass(frozen=True, slots=True)
class CredsTable:
    """A table that holds only creds, one row a session."""

    table: str
    session: str
    value: str


@dataclass(frozen=True, slots=True)
class TableLayout:
    """Columns of a table that holds keys. Either ``name``, or ``ktype`` and ``key_id``.

    ``creds``: the name (or type) of the row of the creds, where no ``creds_table`` holds them.
    """

    table: str
    session: str
    value: str
    name: str | None = None
    ktype: str | None = None
    key_id: str | None = None
    mangled: bool = False
    creds: str = "creds"
    creds_table: CredsTable | None = None
    expires: str | None = None
    spelling: Spelling = Spelling.base64

    @property
    def named(self) -> tuple[str, ...]:
        """The columns that name a row within its session."""
        return (self.name,) if self.name is not None else (str(self.ktype), str(self.key_id))

    @property
    def columns(self) -> frozenset[str]:
        """Every column of the table of keys."""
        return frozenset({self.session, self.value, *self.named} | ({self.expires} if self.expires else set()))


def chosen(layout: Layout | None) -> str | None:
    """The known layout that the map chooses by name, if it does."""
    if layout is None or "layout" not in layout:
        return None
    if len(layout) > 1 or not isinstance(layout["layout"], str):
        raise _wrong("layout stands alone and is the name of one")
    return str(layout["layout"])


def table_layout(layout: Layout) -> TableLayout:
    """A map's table. Raises BadInput."""
    plain = dict(layout)
    creds = plain.pop("creds", "creds")
    mangled = plain.pop("mangled", False)
    texts = _texts(plain, _TEXTS, frozenset({"table", "session", "value"}))
    if ("name" in texts) == ("type" in texts) or ("type" in texts) != ("id" in texts):
        raise _wrong("has either name, or type and id")
    if not isinstance(mangled, bool) or (mangled and "name" not in texts):
        raise _wrong("mangled is true or false, and goes with name")
    own = _creds_table(creds)
    if own is None and not isinstance(creds, str):
        raise _wrong("creds is the name of a row or a table")
    spelling = texts.get("spelling", Spelling.base64.value)
    if spelling not in {Spelling.base64, Spelling.octets, Spelling.indexed}:
        raise _wrong("spelling is base64, octets or indexed")
    return TableLayout(
        texts["table"],
        texts["session"],
        texts["value"],
        texts.get("name"),
        texts.get("type"),
        texts.get("id"),
        mangled,
        creds if isinstance(creds, str) else "",
        own,
        texts.get("expires"),
        Spelling(spelling),
    )


def _creds_table(creds: object) -> CredsTable | None:
    return CredsTable(**_texts(creds, _CREDS_TEXTS, _CREDS_TEXTS)) if isinstance(creds, Mapping) else None


def _texts(plain: Mapping[str, Any], known: frozenset[str], needed: frozenset[str]) -> dict[str, str]:
    if plain.keys() - known:
        raise _wrong(f"knows no other members than {', '.join(sorted(known))}, creds, mangled and layout")
    if needed - plain.keys() or not all(isinstance(text, str) and text for text in plain.values()):
        raise _wrong(f"needs {', '.join(sorted(needed))}, each a text")
    return dict(plain)


def _wrong(why: str) -> BadInput:
    return BadInput(f"[source] {why}", pointer="--map")
