"""Who is next where tenants share slots: `service.store.shares` by itself."""

import asyncio

from service.store.shares import Shares


class Users:
    """Who got a slot, in order; each keeps it until it is told to go."""

    def __init__(self, shares: Shares) -> None:
        self.shares = shares
        self.got: list[str] = []
        self.leaving: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def come(self, *names: str) -> None:
        """A name's first letter is its tenant."""
        for name in names:
            self.leaving[name] = asyncio.Event()
            self.tasks[name] = asyncio.create_task(self._use(name))
        await self._settle()

    async def go(self, name: str) -> None:
        self.leaving[name].set()
        await self._settle()

    async def give_up(self, *names: str) -> None:
        for name in names:
            self.tasks[name].cancel()
        await self._settle()

    async def _use(self, name: str) -> None:
        async with self.shares.one(name[0]):
            self.got.append(name)
            await self.leaving[name].wait()

    @staticmethod
    async def _settle() -> None:
        for _ in range(5):
            await asyncio.sleep(0)


async def test_tenants_take_turns_and_within_one_the_first_is_first():
    users = Users(Shares(1))
    await users.come("a1", "a2", "a3", "b1", "b2", "c1")
    for name in ("a1", "a2", "b1", "c1", "a3", "b2"):
        assert users.got[-1] == name
        await users.go(name)
    await users.come("a4")
    assert users.got[-1] == "a4"


async def test_whoever_holds_the_fewest_is_next():
    users = Users(Shares(2))
    await users.come("a1", "a2", "a3", "b1")
    assert users.got == ["a1", "a2"]
    await users.go("a1")
    assert users.got == ["a1", "a2", "b1"]
    await users.go("a2")
    assert users.got == ["a1", "a2", "b1", "a3"]


async def test_a_spare_slot_is_for_a_tenant_that_holds_none():
    users = Users(Shares(2, spare=1))
    await users.come("a1", "a2", "a3", "b1", "b2", "c1")
    assert users.got == ["a1", "a2", "b1"]
    await users.go("b1")
    assert users.got[3:] == ["c1"] or users.got[3:] == ["b2"]
    await users.go("a1")
    await users.go("a2")
    assert set(users.got) == {"a1", "a2", "a3", "b1", "b2", "c1"}


async def test_whoever_gives_up_takes_nothing_along():
    users = Users(Shares(1))
    await users.come("a1", "a2", "b1", "c1")
    await users.give_up("a2", "b1")
    await users.go("a1")
    assert users.got == ["a1", "c1"]
    await users.come("a3")
    users.leaving["c1"].set()
    await asyncio.sleep(0)  # the slot is given to a3, which has not run yet
    await users.give_up("a3")
    await users.come("b2")
    assert users.got[-1] == "b2"
