"""Our own export as a source: whole or refused, byte for byte."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from source_contract import CREDS, KEYS, PAIR, Rig, SourceContract, same, text

from service.errors import BadInput
from service.migrate.source import Source, Write, WrongSource
from service.migrate.sources import ndjson, open_source


class NdjsonRig(Rig):
    """One file, replaced by its writer."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.held: dict[str, tuple[Any, dict[tuple[str, str], Any]]] = {}
        self.replace()

    async def fill(self, session: str, creds: Any, keys: dict[tuple[str, str], Any]) -> None:
        self.held[session] = creds, dict(keys)
        self.replace()

    async def touch(self, session: str) -> None:
        self.held[session][1]["lid-mapping", "15550100002"] = "100000000000009"
        self.replace()

    async def contents(self) -> Any:
        folder = self.path.parent
        return self.path.stat().st_mtime_ns, self.path.read_bytes(), sorted(path.name for path in folder.iterdir())

    def replace(self) -> None:
        lines = [ndjson.head()]
        for name, (creds, keys) in self.held.items():
            lines += [ndjson.session_head(name, 3), ndjson.creds_line(text(creds))]
            lines += [ndjson.key_line(*key, text(value)) for key, value in keys.items()]
            lines.append(ndjson.session_tail(name, 1 + len(keys)))
        new = self.path.with_suffix(".tmp")
        new.write_bytes(b"".join([*lines, ndjson.tail(len(self.held))]))
        new.rename(self.path)

    @asynccontextmanager
    async def source(self) -> AsyncIterator[Source]:
        async with await open_source(f"ndjson:{self.path}") as source:
            yield source

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[Source]:
        async with await open_source(f"ndjson:{self.path}.absent") as source:
            yield source


class TestNdjson(SourceContract):
    @pytest.fixture
    async def rig(self, tmp_path: Path) -> NdjsonRig:
        return NdjsonRig(tmp_path / "sessions.ndjson")

    async def test_a_file_cut_off_anywhere_is_refused(self, rig: NdjsonRig) -> None:
        await rig.fill("one", CREDS, KEYS)
        await rig.fill("two", CREDS, {})
        whole = rig.path.read_bytes()
        ends = [at for at, octet in enumerate(whole, 1) if octet == ord("\n")]
        for length in {
            0,
            1,
            20,
            len(whole) - 2,
            *range(0, len(whole), 211),
            *ends[:-1],
            *(end - 1 for end in ends[:-1]),
        }:
            rig.path.write_bytes(whole[:length])
            with pytest.raises(WrongSource):
                await open_source(f"ndjson:{rig.path}")
        rig.path.write_bytes(whole)
        async with rig.source():
            pass

    async def test_a_line_lost_doubled_or_foreign_is_refused(self, rig: NdjsonRig) -> None:
        await rig.fill("one", CREDS, {("pre-key", "1"): PAIR})
        lines = rig.path.read_bytes().splitlines(keepends=True)
        broken = [lines[:at] + lines[at + 1 :] for at in range(len(lines))]
        broken += [lines[: at + 1] + lines[at:] for at in range(len(lines))]
        broken += [[*lines[:2], b"{}\n", *lines[2:]], [*lines[:2], b'{"other":1}\n', *lines[2:]], [*lines, b"\n"]]
        broken += [[lines[0].replace(b":1", b":2"), *lines[1:]]]
        for each in broken:
            rig.path.write_bytes(b"".join(each))
            with pytest.raises(WrongSource):
                await open_source(f"ndjson:{rig.path}")

    async def test_values_come_back_byte_for_byte(self, rig: NdjsonRig) -> None:
        odd = [b'{"b":1e21,"a":1.0,"a":2}', b'"\\ud83d"', b'"\\u0000"', '"\u2028é"'.encode(), b'{"x" : [ ] }']
        writes = [Write("test-type", f"ü/{at}", value) for at, value in enumerate(odd)]
        async with rig.source() as source:
            await source.write("one", b'{"z":1,"a":1.50}', [*writes, Write("t", "lines", b'{\n"a":\r\n1}')])
            async with source.snapshot() as snapshot:
                found = await snapshot.read("one")
        assert found.creds == b'{"z":1,"a":1.50}'
        assert [row.text for row in found.rows] == [*odd, b'{ "a":  1}']

    async def test_what_is_written_only_its_owner_reads(self, rig: NdjsonRig) -> None:
        async with rig.source() as source:
            await source.write("one", text(CREDS), [])
        assert rig.path.stat().st_mode & 0o777 == 0o600
        assert os.listdir(rig.path.parent) == [rig.path.name]

    async def test_writers_of_one_file_wait_for_each_other(self, rig: NdjsonRig) -> None:
        names = [f"s{n}" for n in range(12)]

        async def write(name: str) -> None:
            async with rig.source() as source:
                await source.write(name, text(CREDS), [Write(*key, text(value)) for key, value in KEYS.items()])

        await asyncio.gather(*map(write, names))
        async with rig.source() as source, source.snapshot() as snapshot:
            for name in names:
                same(await snapshot.read(name), CREDS, KEYS)
        assert os.listdir(rig.path.parent) == [rig.path.name]

    async def test_a_map_is_refused(self, rig: NdjsonRig) -> None:
        with pytest.raises(BadInput):
            await open_source(f"ndjson:{rig.path}", {"table": "x"})

    async def test_a_session_without_creds(self, rig: NdjsonRig) -> None:
        async with rig.source() as source:
            await source.write("one", None, [Write("pre-key", "1", text(PAIR))])
            async with source.snapshot() as snapshot:
                found = await snapshot.read("one")
            assert found.creds is None
            await source.write("one", text(CREDS), [])
            async with source.snapshot() as snapshot:
                same(await snapshot.read("one"), CREDS, {("pre-key", "1"): PAIR})
        assert json.loads(rig.path.read_bytes().splitlines()[-1]) == {"sessions": 1}
