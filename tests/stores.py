"""A store of this process on a test's database, without an edge before it: see the fixtures ``store`` and ``other``."""

import os

from service.store import AuthStore
from service.store.auth_store import StoreOptions
from service.vault import MasterKeys

MASTER = os.urandom(32)


async def opened(url: str) -> AuthStore:
    """One more process on the database: all of a run have the same master key."""
    store = AuthStore(url, MasterKeys([MASTER]), None, StoreOptions())
    await store.open()
    return store


def no_turn_is_left(store: AuthStore) -> bool:
    return not any(line.taken for line in store.settler._heads._lines.values())
