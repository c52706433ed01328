"""Work on disks, in threads that nobody can stop."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class DoneLate(asyncio.CancelledError):
    """Cancelled, and what was to be done is done all the same."""


async def to_the_end(work: Callable[P, T], *args: P.args, **more: P.kwargs) -> T:
    """``work`` in a thread. Who is cancelled meanwhile leaves when it is done, not before: a write left behind, to a disk
    that hangs, could arrive after a later one. Raises DoneLate then, unless the work failed."""
    done = asyncio.ensure_future(asyncio.to_thread(work, *args, **more))
    try:
        return await asyncio.shield(done)
    except asyncio.CancelledError:
        while not done.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([done])
        # Of a failure it is told that it was cancelled, and no more.
        if not done.cancelled() and done.exception() is None:
            raise DoneLate from None
        raise
