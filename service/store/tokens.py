"""Bearer tokens: ``bas_<id>_<secret>``, the secret's SHA-256 stored, compared in constant time.

The secret has 256 random bits, so a plain hash is enough: there is nothing to guess. The configured first token may have
any form; it belongs to the tenant ``default`` with scope ``admin`` and is never stored.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections import OrderedDict
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from protocol.types import check_tenant
from service.errors import BadInput, Unauthorized
from service.sql import access as sql
from service.sql.pool import Database
from service.store.caller import Caller, Scope

DEFAULT_TENANT: Final = "default"
_PREFIX: Final = "bas_"
_BELIEVED_S: Final = 1.0
"""How long a found token is believed: within this time after `token revoke` it ends everywhere."""
_REMEMBERED: Final = 4096
_STRANGERS: Final = 2
"""How many tokens that were never found are looked up at a time: a flood of them queues behind itself."""


@dataclass(frozen=True, slots=True)
class TokenRow:
    id: str
    tenant: str
    scope: str
    label: str = field(repr=False)
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None


class Tokens:
    """Finds callers by token; makes, lists and revokes tokens. ``first`` is the configured token."""

    def __init__(self, database: Database, first: str | None) -> None:
        self._database = database
        self._first = None if first is None else _hash(first)
        self._found: OrderedDict[bytes, tuple[float, Caller]] = OrderedDict()
        self._strangers = asyncio.Semaphore(_STRANGERS)

    def __repr__(self) -> str:
        return "<Tokens>"

    async def find(self, token: str) -> Caller:
        """Who holds this token. Unauthorized when nobody does."""
        hashed = _hash(token)
        if self._first is not None and hmac.compare_digest(hashed, self._first):
            return Caller(DEFAULT_TENANT, "admin")
        believed = self._believed(hashed)
        if believed is not None:
            return believed
        try:
            async with nullcontext() if hashed in self._found else self._strangers:
                # Who waited may find that another request of the same token has been answered.
                return self._believed(hashed) or await self._found_now(token, hashed)
        except Unauthorized:
            self._found.pop(hashed, None)  # from now on a stranger
            raise

    def _believed(self, hashed: bytes) -> Caller | None:
        until, caller = self._found.get(hashed, (0.0, None))
        return caller if asyncio.get_running_loop().time() < until else None

    async def _found_now(self, token: str, hashed: bytes) -> Caller:
        asked = asyncio.get_running_loop().time()
        caller = await self._look_up(token)
        self._found[hashed] = (asked + _BELIEVED_S, caller)
        self._found.move_to_end(hashed)
        while len(self._found) > _REMEMBERED:
            self._found.popitem(last=False)
        return caller

    async def _look_up(self, token: str) -> Caller:
        token_id, _, secret = token.removeprefix(_PREFIX).partition("_")
        if not (token.startswith(_PREFIX) and token_id and secret and token.isascii() and "\0" not in token):
            raise Unauthorized
        row = await self._database.ask(lambda connection: sql.find_token(connection, token_id))
        # Compared also when there is no such id, so that both take the same way.
        stored = row["hash"] if row is not None else bytes(32)
        if not hmac.compare_digest(_hash(secret), stored) or row is None:
            raise Unauthorized
        return Caller(row["tenant"], row["scope"])

    async def create(self, tenant: str, scope: Scope, label: str, lifetime: timedelta | None) -> str:
        """A new token; this is the only time it is seen."""
        check_tenant(tenant)
        if len(label) > 100:  # noqa: PLR2004 - the column's bound
            raise BadInput("a label has at most 100 characters")
        token_id, secret = secrets.token_hex(8), secrets.token_urlsafe(32)
        expires = None if lifetime is None else datetime.now(UTC) + lifetime
        async with self._database.connection() as connection:
            await sql.add_token(connection, token_id, tenant, scope, label, _hash(secret), expires)
        return f"{_PREFIX}{token_id}_{secret}"

    async def list(self) -> list[TokenRow]:
        async with self._database.connection() as connection:
            return [TokenRow(**dict(record)) for record in await sql.list_tokens(connection)]

    async def revoke(self, token_id: str) -> bool:
        """False when there was nothing to revoke."""
        async with self._database.connection() as connection:
            return await sql.revoke_token(connection, token_id)


def _hash(text: str) -> bytes:
    return hashlib.sha256(text.encode(errors="surrogateescape")).digest()
