"""What every source must do, run against the real thing. `test_source_*.py` subclass `SourceContract`.

A subclass gives a `Rig`: an empty store of its kind, filled by its own library or by plain SQL, and the source over it.
"""

import asyncio
import json
from abc import ABC, abstractmethod
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from protocol.digest import digest
from protocol.repairs import repair
from service.migrate.source import Found, Source, SourceAway, SourceError, Write

CREDS: dict[str, Any] = {
    "signedIdentityKey": {
        "private": {"type": "Buffer", "data": "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="},
        "public": {"type": "Buffer", "data": "AgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4fICE="},
    },
    "nextPreKeyId": 4,
    "firstUnuploadedPreKeyId": 4,
    "registered": False,
    "me": {"id": "15550100001:5@s.whatsapp.net", "name": "Zoë 🦉"},
}
PAIR = CREDS["signedIdentityKey"]
KEYS: dict[tuple[str, str], Any] = {
    ("pre-key", "1"): PAIR,
    ("pre-key", "3"): PAIR,
    ("session", "15550100002.0"): {
        "_sessions": {"BQ==": {"_chains": {"BQ==": {"messageKeys": {"1": "AQI="}}}}},
        "version": "v1",
    },
    ("sender-key", "120363000000000001@g.us::15550100002::0"): {"type": "Buffer", "data": "W10="},
    ("sender-key-memory", "120363000000000001@g.us"): {"15550100002:0@s.whatsapp.net": True},
    ("app-state-sync-key", "AAAAAEx/"): {"keyData": {"type": "Buffer", "data": "AQID"}, "timestamp": "1700000000"},
    ("app-state-sync-version", "regular_low"): {
        "version": 1,
        "hash": {"type": "Buffer", "data": ""},
        "indexValueMap": {},
    },
    ("lid-mapping", "15550100002"): "100000000000002",
    ("lid-mapping", "100000000000002_reverse"): "15550100002",
}


def text(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


class Rig(ABC):
    """A store under test."""

    holds_any_type = True
    """False: the layout has no room for types or ids of one's own."""

    @abstractmethod
    async def fill(self, session: str, creds: Any, keys: dict[tuple[str, str], Any]) -> None:
        """Stores a session as the store's own library does."""

    @abstractmethod
    async def touch(self, session: str) -> None:
        """Changes one value of the session, as its own writer would, to another value."""

    @abstractmethod
    async def contents(self) -> Any:
        """Everything in the store, so that two answers are equal exactly when nothing was changed."""

    @abstractmethod
    def source(self) -> AbstractAsyncContextManager[Source]:
        """The source over it, made by `open_source`."""

    @abstractmethod
    def unreachable(self) -> AbstractAsyncContextManager[Source]:
        """A source over a store that is not there, by `open_source`."""


class SourceContract:
    """The duties of `service.migrate.source`, in its order."""

    @pytest.fixture
    async def rig(self) -> Rig:
        raise NotImplementedError

    async def test_what_is_there_is_found_whole(self, rig: Rig) -> None:
        await rig.fill("one", CREDS, KEYS)
        await rig.fill("two", CREDS, {})
        async with rig.source() as source, source.snapshot() as snapshot:
            assert sorted([name async for name in snapshot.sessions()]) == ["one", "two"]
            same(await snapshot.read("one"), CREDS, KEYS)
            same(await snapshot.read("two"), CREDS, {})

    async def test_an_unknown_session_is_empty(self, rig: Rig) -> None:
        await rig.fill("one", CREDS, KEYS)
        async with rig.source() as source, source.snapshot() as snapshot:
            found = await snapshot.read("nobody")
            assert (found.creds, found.rows, found.faults) == (None, [], [])
            assert await source.fingerprint("nobody") == await source.fingerprint("nobody")

    async def test_names_do_not_leak_into_each_other(self, rig: Rig) -> None:
        for name in ("a", "ab", "a_", "a%"):
            await rig.fill(name, CREDS, {("pre-key", "1"): PAIR})
        async with rig.source() as source:
            await source.write("a_", None, [Write("pre-key", "1", None)])
            async with source.snapshot() as snapshot:
                left = {name: len((await snapshot.read(name)).rows) for name in ("a", "ab", "a_", "a%")}
        assert left == {"a": 1, "ab": 1, "a_": 0, "a%": 1}

    async def test_reading_changes_nothing(self, rig: Rig) -> None:
        await rig.fill("one", CREDS, KEYS)
        before = await rig.contents()
        async with rig.source() as source:
            async with source.snapshot() as snapshot:
                names = [name async for name in snapshot.sessions()]
                for name in [*names, "nobody"]:
                    await snapshot.read(name)
            await source.fingerprint("one")
        assert await rig.contents() == before

    async def test_a_snapshot_stands_still(self, rig: Rig) -> None:
        await rig.fill("one", CREDS, KEYS)
        async with rig.source() as source, source.snapshot() as snapshot:
            if not snapshot.consistent:
                pytest.skip("this store has no snapshots; a cutover reads it after its writer stopped")
            before = await snapshot.read("one")
            await rig.touch("one")
            assert await snapshot.read("one") == before
            async with source.snapshot() as later:
                assert await later.read("one") != before

    async def test_the_fingerprint_changes_with_every_write_and_not_without(self, rig: Rig) -> None:
        await rig.fill("one", CREDS, KEYS)
        await rig.fill("two", CREDS, {})
        async with rig.source() as source:
            seen = [await source.fingerprint("one")]
            other = await source.fingerprint("two")
            assert await source.fingerprint("one") == seen[0]
            await asyncio.sleep(0.05)
            await rig.touch("one")
            seen.append(await source.fingerprint("one"))
            await source.write("one", None, [Write("pre-key", "1", None)])
            seen.append(await source.fingerprint("one"))
            await source.write("one", None, [Write("pre-key", "2", text(PAIR))])
            seen.append(await source.fingerprint("one"))
            await source.write("one", text({**CREDS, "nextPreKeyId": 5}), [])
            seen.append(await source.fingerprint("one"))
            assert len(set(seen)) == len(seen)
            assert await source.fingerprint("two") == other

    async def test_a_write_is_applied_and_may_be_repeated(self, rig: Rig) -> None:
        await rig.fill("one", CREDS, KEYS)
        await rig.fill("two", CREDS, KEYS)
        creds = {**CREDS, "nextPreKeyId": 9}
        writes = [
            Write("pre-key", "1", None),
            Write("pre-key", "77", None),
            Write("pre-key", "3", text({**PAIR, "private": PAIR["public"]})),
            Write("lid-mapping", "15550100003", text("100000000000003")),
            Write(
                "sender-key", "120363000000000001@g.us::100000000000003_1::2", text({"type": "Buffer", "data": "W10="})
            ),
        ]
        expected: dict[tuple[str, str], Any] = {key: value for key, value in KEYS.items() if key != ("pre-key", "1")}
        expected |= {(row.ktype, row.key_id): json.loads(row.text) for row in writes if row.text is not None}
        async with rig.source() as source:
            for _ in range(2):
                await source.write("one", text(creds), writes)
                async with source.snapshot() as snapshot:
                    same(await snapshot.read("one"), creds, expected)
                    same(await snapshot.read("two"), CREDS, KEYS)

    async def test_a_rehearsal_leaves_nothing(self, rig: Rig) -> None:
        await rig.fill("one", CREDS, KEYS)
        before = await rig.contents()
        async with rig.source() as source:
            for _ in range(2):
                await source.rehearse("one", text(CREDS))
        assert await rig.contents() == before

    async def test_a_whole_write_leaves_nothing_of_before(self, rig: Rig) -> None:
        await rig.fill("one", CREDS, KEYS)
        await rig.fill("two", CREDS, KEYS)
        async with rig.source() as source:
            await source.write("one", text(CREDS), [Write("pre-key", "9", text(PAIR))], whole=True)
            async with source.snapshot() as snapshot:
                same(await snapshot.read("one"), CREDS, {("pre-key", "9"): PAIR})
                same(await snapshot.read("two"), CREDS, KEYS)

    async def test_a_session_it_never_had_can_be_written(self, rig: Rig) -> None:
        async with rig.source() as source:
            await source.write(
                "new", text(CREDS), [Write(*key, text(value)) for key, value in KEYS.items()], whole=True
            )
            async with source.snapshot() as snapshot:
                same(await snapshot.read("new"), CREDS, KEYS)

    async def test_large_values_go_through(self, rig: Rig) -> None:
        large = {"version": 1, "hash": {"type": "Buffer", "data": ""}, "indexValueMap": {
            f"{n:01600d}": {"valueMac": {"type": "Buffer", "data": "AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyA="}}
            for n in range(4_000)
        }}  # fmt: skip
        assert len(text(large)) > 6_500_000
        async with rig.source() as source:
            await source.write(
                "one", text(CREDS), [Write("app-state-sync-version", "regular", text(large))], whole=True
            )
            async with source.snapshot() as snapshot:
                same(await snapshot.read("one"), CREDS, {("app-state-sync-version", "regular"): large})

    async def test_a_store_that_is_not_there_is_away_and_never_empty(self, rig: Rig) -> None:
        with pytest.raises(SourceError) as caught:
            async with rig.unreachable() as source, source.snapshot() as snapshot:
                _ = [name async for name in snapshot.sessions()]
        assert isinstance(caught.value, SourceAway)

    async def test_closing_twice_is_no_error(self, rig: Rig) -> None:
        async with rig.source() as source:
            await source.fingerprint("one")
            await source.close()


def same(found: Found, creds: Any, keys: dict[tuple[str, str], Any]) -> None:
    """The values mean the same, whatever their spelling; nothing more and nothing less is there."""
    assert found.faults == []
    assert found.creds is not None
    assert digest("", found.creds) == digest("", text(creds))
    assert {(row.ktype, row.key_id) for row in found.rows} == set(keys)
    assert len(found.rows) == len(keys)
    for row in found.rows:
        assert digest(row.ktype, row.text) == digest(row.ktype, text(keys[row.ktype, row.key_id])), row.ktype
        repair(row.ktype, row.text)  # and Baileys' spelling can be made of it
