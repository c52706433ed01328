"""A store as the settings want it."""

from datetime import timedelta

from service.config import Settings
from service.store.auth_store import AuthStore, StoreOptions
from service.vault import MasterKeys


def make_store(settings: Settings, url: str, masters: MasterKeys, token: str | None) -> AuthStore:
    """Not yet open."""
    options = StoreOptions(
        pool_max=settings.pool_max,
        pooled=settings.pooler == "transaction",
        patience_s=min(10.0, settings.request_timeout_s),
        statement_s=settings.request_timeout_s,
        delete_window=timedelta(days=settings.delete_window_days),
    )
    return AuthStore(url, masters, token, options)
