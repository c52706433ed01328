"""A store as the settings want it."""

from datetime import timedelta

from service.config import Settings
from service.store.auth_store import AuthStore, StoreOptions
from service.vault import MasterKeys


def make_store(settings: Settings, url: str, masters: MasterKeys, token: str | None) -> AuthStore:
    """Not yet open."""
    return AuthStore(url, masters, token, store_options(settings))


def store_options(settings: Settings) -> StoreOptions:
    """What the settings say of a store."""
    return StoreOptions(
        pool_max=settings.pool_max,
        pooled=settings.pooler == "transaction",
        patience_s=min(10.0, settings.request_timeout_s),
        statement_s=settings.request_timeout_s,
        delete_window=timedelta(days=settings.delete_window_days),
    )
