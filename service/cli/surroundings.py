"""What a command works with: the settings, and a store on the running service's database or one started for it."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import typer

from service import first_secrets
from service.config import ConfigError, Settings, load_settings
from service.embedded import running
from service.store import AuthStore, make_store

T = TypeVar("T")


def settings_of(context: typer.Context) -> Settings:
    """The settings: common flags over environment over file."""
    return load_settings(**context.obj)


@contextmanager
def database_url(settings: Settings) -> Iterator[str]:
    """The URL of the configured database; the embedded one is started unless a service runs it.

    Raises ConfigError where no service has ever made one: a wrong folder would else become a new, empty installation.
    """
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
        return
    if not _made(settings):
        raise ConfigError(
            [
                f"there is no database in {settings.data_dir.absolute()}: `authstore serve` makes one there; "
                "--data-dir or AUTHSTORE_DATA_DIR names another folder, AUTHSTORE_DATABASE_URL a Postgres of your own."
            ]
        )
    with running(settings.data_dir, pg_bin=settings.pg_bin) as url:
        yield url


def with_store(context: typer.Context, work: Callable[[AuthStore], Awaitable[T]]) -> T:
    """Runs ``work`` on an open store. Raises what opening and work raise."""
    settings = settings_of(context)
    with database_url(settings) as url:
        masters = first_secrets.master_keys(settings, lambda: load_settings(**context.obj))
        store = make_store(settings, url, masters, None)
        return asyncio.run(_opened(store, work))


def with_store_as_it_is(context: typer.Context, work: Callable[[AuthStore | None], Awaitable[T]]) -> T:
    """Runs ``work`` on the store without changing a thing; on None while there is no database or no schema in it."""
    settings = settings_of(context)
    if settings.embedded and not _made(settings):
        return asyncio.run(_awaited(work(None)))
    with database_url(settings) as url:
        masters = first_secrets.master_keys(settings, lambda: load_settings(**context.obj))
        return asyncio.run(_as_it_is(make_store(settings, url, masters, None), work))


def _made(settings: Settings) -> bool:
    folder = settings.data_dir
    try:
        return (folder / "pg").exists() or (folder.exists() and not folder.is_dir())
    except PermissionError:
        return True  # whoever opens it says what is the matter


async def _awaited(result: Awaitable[T]) -> T:
    return await result


async def _as_it_is(store: AuthStore, work: Callable[[AuthStore | None], Awaitable[T]]) -> T:
    try:
        return await work(store if await store.open_as_it_is() else None)
    finally:
        await store.close()


async def _opened(store: AuthStore, work: Callable[[AuthStore], Awaitable[T]]) -> T:
    try:
        await store.open()
        return await work(store)
    finally:
        await store.close()
