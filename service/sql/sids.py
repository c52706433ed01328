"""Sessions' uuids as the driver has them."""

from functools import lru_cache
from uuid import UUID

from asyncpg.pgproto.pgproto import UUID as DriverUUID

from protocol.types import session_uuid


@lru_cache(maxsize=65_536)
def sid_of(tenant: str, name: str) -> UUID:
    """`session_uuid`, equal to it and of its kind, but hashed and sent without a line of Python: a commit does so often."""
    sid: UUID = DriverUUID(session_uuid(tenant, name).bytes)
    return sid
