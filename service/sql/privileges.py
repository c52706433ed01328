"""What a role of the database lacks, and what to run. Of a refusal the server's text is not shown: what it quotes is its own
choice. The names that are asked for here are the operator's.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg

from service.errors import NotPermitted
from service.sql.pool import Connection

ROLE_SQL: Final = """
SELECT quote_ident(current_user) AS role, quote_ident(current_schema()) AS schema,
       has_schema_privilege(current_schema(), 'CREATE') AS may_create,
       (SELECT quote_ident(pg_get_userbyid(c.relowner)) FROM pg_class c WHERE c.oid = to_regclass('schema_versions'))
           AS owner
"""

_LACKING: Final = (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidSchemaNameError)


@asynccontextmanager
async def permitted(connection: Connection) -> AsyncIterator[None]:
    """Around what needs our tables or makes them; what it began is undone by then. Raises NotPermitted."""
    try:
        yield
    except _LACKING:
        raise NotPermitted(_lacks(await connection.fetchrow(ROLE_SQL))) from None


def _lacks(found: asyncpg.Record | None) -> str:
    assert found is not None  # noqa: S101 - one row, whatever there is
    role, schema, owner = found["role"], found["schema"], found["owner"]
    if schema is None:
        return (
            f"the role {role} finds no schema in its search path: one that is not there, or on which it has no USAGE; "
            f"run GRANT CREATE, USAGE ON SCHEMA public TO {role} as the schema's owner, or set another search_path"
        )
    if not found["may_create"]:
        return (
            f"the role {role} may not create in the schema {schema}: "
            f"run GRANT CREATE, USAGE ON SCHEMA {schema} TO {role} as the schema's owner"
        )
    if owner is None:
        return f"the role {role} lacks a privilege that the service's schema needs"
    return (
        f"the role {role} may not use the tables of the service in the schema {schema}, which {owner} made: "
        f"connect as that role, or run GRANT {owner} TO {role}"
    )
