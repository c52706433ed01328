"""Tokens and master keys as rows."""

from datetime import datetime
from typing import Final

import asyncpg

from service.sql.pool import Connection

FIND_TOKEN_SQL: Final = """
SELECT tenant, scope, hash FROM tokens
WHERE id = $1 AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())
"""

ADD_TOKEN_SQL: Final = """
INSERT INTO tokens (id, tenant, scope, label, hash, expires_at) VALUES ($1, $2, $3, $4, $5, $6)
"""

LIST_TOKENS_SQL: Final = """
SELECT id, tenant, scope, label, created_at, expires_at, revoked_at FROM tokens ORDER BY tenant, created_at, id
"""

REVOKE_TOKEN_SQL: Final = "UPDATE tokens SET revoked_at = now() WHERE id = $1 AND revoked_at IS NULL RETURNING id"

LIST_MASTER_KEYS_SQL: Final = """
SELECT m.id, m.check_value, m.created_at, m.retired_at,
       EXISTS (SELECT FROM sessions s WHERE s.master_key_id = m.id) AS in_use
FROM master_keys m ORDER BY m.created_at, m.id
"""

KNOWS_MASTER_KEYS_SQL: Final = "SELECT to_regclass('master_keys') IS NOT NULL"
HAS_MASTER_KEYS_SQL: Final = "SELECT EXISTS (SELECT FROM master_keys)"

ADD_MASTER_KEY_SQL: Final = """
INSERT INTO master_keys (id, check_value) VALUES ($1, $2)
ON CONFLICT (id) DO UPDATE SET retired_at = NULL
"""

REGISTER_MASTER_KEY_SQL: Final = "INSERT INTO master_keys (id, check_value) VALUES ($1, $2) ON CONFLICT (id) DO NOTHING"

RETIRE_MASTER_KEYS_SQL: Final = "UPDATE master_keys SET retired_at = now() WHERE id <> $1 AND retired_at IS NULL"

IS_LIVING_SQL: Final = "SELECT EXISTS (SELECT FROM master_keys WHERE id = $1 AND retired_at IS NULL)"


async def has_master_keys(connection: Connection) -> bool:
    """Whether one was ever registered; False also where there is no schema yet."""
    known: bool = await connection.fetchval(KNOWS_MASTER_KEYS_SQL)
    return known and bool(await connection.fetchval(HAS_MASTER_KEYS_SQL))


async def had_master_keys(url: str) -> bool:
    """The same of a database to which nobody is connected yet."""
    connection = await asyncpg.connect(url)
    try:
        return await has_master_keys(connection)
    finally:
        await connection.close()


async def find_token(connection: Connection, token_id: str) -> asyncpg.Record | None:
    """``(tenant, scope, hash)`` of a token that is neither revoked nor expired."""
    return await connection.fetchrow(FIND_TOKEN_SQL, token_id)


async def add_token(
    connection: Connection, token_id: str, tenant: str, scope: str, label: str, hashed: bytes, expires: datetime | None
) -> None:
    await connection.execute(ADD_TOKEN_SQL, token_id, tenant, scope, label, hashed, expires)


async def list_tokens(connection: Connection) -> list[asyncpg.Record]:
    return await connection.fetch(LIST_TOKENS_SQL)


async def revoke_token(connection: Connection, token_id: str) -> bool:
    """False when there is no such token, or it is revoked already."""
    return await connection.fetchval(REVOKE_TOKEN_SQL, token_id) is not None


async def list_master_keys(connection: Connection) -> list[asyncpg.Record]:
    return await connection.fetch(LIST_MASTER_KEYS_SQL)


async def add_master_key(connection: Connection, key_id: str, check_value: bytes) -> None:
    """Sessions may be made under this key from now on, also when it was retired before."""
    await connection.execute(ADD_MASTER_KEY_SQL, key_id, check_value)


async def register_master_key(connection: Connection, key_id: str, check_value: bytes) -> bool:
    """Makes an unknown key known; False when it is known and retired."""
    await connection.execute(REGISTER_MASTER_KEY_SQL, key_id, check_value)
    living: bool = await connection.fetchval(IS_LIVING_SQL, key_id)
    return living


async def retire_master_keys(connection: Connection, current: str) -> None:
    """Retires every master key but the current one: no session is made under them any more, whoever still holds them."""
    await connection.execute(RETIRE_MASTER_KEYS_SQL, current)
