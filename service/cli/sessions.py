"""sessions list, deleted, show, release, delete, restore."""

from typing import Annotated

import typer

from protocol.printable import printable
from protocol.types import check_session_name, check_tenant
from service.cli.output import Format, FormatOption, show, show_one
from service.cli.surroundings import with_store
from service.errors import Deleted
from service.store import AuthStore, Caller
from service.store.sessions import Summary
from service.store.tokens import DEFAULT_TENANT

app = typer.Typer(help="Sessions of a tenant.", no_args_is_help=True)

TenantOption = Annotated[str, typer.Option("--tenant", help="Whose sessions.")]
Name = Annotated[str, typer.Argument(help="The session's name.")]


@app.command("list")
def list_sessions(
    context: typer.Context,
    prefix: Annotated[str, typer.Option(help="Only names that begin with this.")] = "",
    tenant: TenantOption = DEFAULT_TENANT,
    how: FormatOption = Format.table,
) -> None:
    """Every session, by name."""
    caller = _operator(tenant)
    show([_row(each) for each in with_store(context, lambda store: _all(store, caller, prefix))], how)


@app.command("deleted")
def list_deleted(
    context: typer.Context, tenant: TenantOption = DEFAULT_TENANT, how: FormatOption = Format.table
) -> None:
    """Sessions that were deleted and can still be restored, the latest first."""
    caller = _operator(tenant)
    found = with_store(context, lambda store: store.deleted(caller))
    rows = [
        {"session": each.name, "keys": each.keys, "deleted": each.deleted_at, "restorable until": each.restorable_until}
        for each in found
    ]
    show(rows, how)


@app.command("show")
def show_session(
    context: typer.Context, name: Name, tenant: TenantOption = DEFAULT_TENANT, how: FormatOption = Format.table
) -> None:
    """One session's summary."""
    caller = _operator(tenant)

    async def work(store: AuthStore) -> tuple[Summary, int]:
        return await store.show(caller, check_session_name(name)), await store.mirrors.waiting_of(caller, name)

    found, waiting = with_store(context, work)
    mirror = {"mirrored": found.mirrored, "waiting for the mirror": waiting}
    show_one(_row(found) | mirror | {f"keys {ktype}": count for ktype, (count, _) in found.keys.items()}, how)


@app.command()
def release(
    context: typer.Context,
    name: Name,
    yes: Annotated[bool, typer.Option("--yes", help="End it without asking.")] = False,
    tenant: TenantOption = DEFAULT_TENANT,
) -> None:
    """Ends a session's lease, for a bot that was killed: another need not wait until it expires.

    Of a holder that lives after all the writes are refused as soon as another has the lease, or writes without one.
    """
    caller = _operator(tenant)

    async def work(store: AuthStore) -> str:
        found = await store.show(caller, check_session_name(name))
        if found.lease is None:
            return "not leased, and left as it is"
        until = found.lease.expires_at.isoformat(timespec="seconds")
        typer.echo(f"leased by {printable(found.lease.holder)} until {until}", err=True)
        if not yes:
            typer.confirm("End this lease? Only when its holder is gone.", abort=True, err=True)
        await store.release(caller, name, found.epoch)  # of this very lease: Fenced when it changed hands since
        return "released"

    typer.echo(with_store(context, work))


@app.command()
def delete(
    context: typer.Context,
    name: Name,
    purge: Annotated[bool, typer.Option("--purge", help="Destroy now, leave nothing to restore.")] = False,
    tenant: TenantOption = DEFAULT_TENANT,
) -> None:
    """Deletes a session; it can be restored for a while unless purged."""
    caller = _operator(tenant)
    removed = with_store(context, lambda store: store.delete(caller, check_session_name(name), epoch=None, purge=purge))
    until = removed.restorable_until
    typer.echo(
        "destroyed" if until is None else f"deleted; can be restored until {until.isoformat(timespec='seconds')}"
    )


@app.command()
def restore(context: typer.Context, name: Name, tenant: TenantOption = DEFAULT_TENANT) -> None:
    """Brings a deleted session back."""
    caller = _operator(tenant)

    async def work(store: AuthStore) -> bool:
        try:
            await store.show(caller, check_session_name(name))
        except Deleted:
            await store.restore(caller, name)
            return True
        return False

    typer.echo("restored" if with_store(context, work) else "not deleted, and left as it is")


async def _all(store: AuthStore, caller: Caller, prefix: str) -> list[Summary]:
    found: list[Summary] = []
    cursor: str | None = ""
    while cursor is not None:
        page, cursor = await store.list(caller, prefix, cursor, 1000)
        found += page
    return found


def _operator(tenant: str) -> Caller:
    return Caller(check_tenant(tenant), "admin")


def _row(each: Summary) -> dict[str, object]:
    return {
        "session": each.name,
        "version": each.version,
        "epoch": each.epoch,
        "paired": each.paired,
        "leased by": None if each.lease is None else each.lease.holder,
        "keys": sum(count for count, _ in each.keys.values()),
        "bytes": sum(size for _, size in each.keys.values()),
        "updated": each.updated_at,
    }
