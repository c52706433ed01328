"""Multi-file folders as a source: written by real Baileys, broken in every way a disk knows."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import states
from multi_file import FIXTURES, get_folder, put_folder
from source_contract import CREDS, KEYS, PAIR, Rig, SourceContract, same, text

from protocol.digest import digest
from protocol.file_names import file_name
from service.errors import BadInput
from service.migrate.source import FaultKind, Source, SourceAway, SourceError, Write, WrongSource
from service.migrate.sources import files, open_source

TWO_KEYS = (("pre-key", "1"), ("pre-key", "2"))
WRITE_AS_ANOTHER = """
import os, sys
from service.migrate.source import SourceRefused, Write
from service.migrate.sources import files
source = files.FilesSource(files.Path(sys.argv[1]), alone=False)
os.setgroups([])
os.setgid(12345)
os.setuid(12345)  # from here on no more of Python may be within reach
try:
    source._write("one", b"{}", [Write("pre-key", "1", None)], True)
except SourceRefused:
    os._exit(42)
"""


class FilesRig(Rig):
    """A folder of session folders."""

    def __init__(self, root: Path) -> None:
        self.root = root

    async def fill(self, session: str, creds: Any, keys: dict[tuple[str, str], Any]) -> None:
        folder = self.root / session
        folder.mkdir(parents=True)
        (folder / "creds.json").write_text(json.dumps(creds))
        for name, value in keys.items():
            (folder / file_name(*name)).write_text(json.dumps(value))

    async def touch(self, session: str) -> None:
        (self.root / session / "lid-mapping-15550100002.json").write_text('"100000000000009"')

    async def contents(self) -> Any:
        """Everything but access times."""
        found = []
        for path in sorted(self.root.rglob("*")):
            about = path.lstat()
            found.append((path, about.st_mtime_ns, about.st_ctime_ns, path.is_file() and path.read_bytes()))
        return found

    @asynccontextmanager
    async def source(self) -> AsyncIterator[Source]:
        async with await open_source(f"files:{self.root}") as source:
            yield source

    @asynccontextmanager
    async def unreachable(self) -> AsyncIterator[Source]:
        async with await open_source(f"files:{self.root / 'nowhere'}") as source:
            yield source


class TestFiles(SourceContract):
    @pytest.fixture
    async def rig(self, tmp_path: Path) -> FilesRig:
        root = tmp_path / "sessions"
        root.mkdir()
        return FilesRig(root)

    async def test_a_root_that_vanishes_is_away(self, rig: FilesRig) -> None:
        async with rig.source() as source, source.snapshot() as snapshot:
            rig.root.rmdir()
            with pytest.raises(SourceAway):
                _ = [name async for name in snapshot.sessions()]

    @pytest.mark.parametrize("name", ["", ".", "..", "../out", "a/b", "/etc", "nul\0"])
    async def test_no_name_leads_out_of_the_folder(self, rig: FilesRig, name: str) -> None:
        outside = rig.root.parent / "out"
        await FilesRig(rig.root.parent).fill("out", CREDS, KEYS)
        before = sorted(outside.iterdir())
        async with rig.source() as source:
            with pytest.raises(SourceError):
                await source.write(name, text(CREDS), [Write("pre-key", "1", None)], whole=True)
            async with source.snapshot() as snapshot:
                assert (await snapshot.read(name)).creds is None
        assert sorted(outside.iterdir()) == before
        assert list(rig.root.iterdir()) == []

    async def test_links_are_followed_inside_and_only_there(self, rig: FilesRig) -> None:
        await FilesRig(rig.root.parent).fill("out", CREDS, KEYS)
        await rig.fill("one", CREDS, {("pre-key", "1"): PAIR})
        one, outside = rig.root / "one", rig.root.parent / "out"
        (one / "pre-key-2.json").symlink_to("pre-key-1.json")
        (one / "pre-key-3.json").symlink_to(outside / "pre-key-3.json")
        (one / "pre-key-4.json").symlink_to("pre-key-4.json")
        (one / "pre-key-5.json").symlink_to("nowhere.json")
        (rig.root / "two").symlink_to(outside)
        async with rig.source() as source:
            async with source.snapshot() as snapshot:
                assert [name async for name in snapshot.sessions()] == ["one"]
                found = await snapshot.read("one")
                assert (await snapshot.read("two")).creds is None
            with pytest.raises(SourceError):
                await source.write("two", text(CREDS), [])
            await source.write("one", None, [Write("pre-key", "3", text(PAIR))])
        assert [row.key_id for row in found.rows] == ["1", "2"]
        assert [fault.kind for fault in found.faults] == [FaultKind.foreign] * 3
        assert not (one / "pre-key-3.json").is_symlink()
        assert json.loads((outside / "pre-key-3.json").read_text()) == PAIR

    async def test_what_is_no_key_is_listed_and_nothing_is_guessed(
        self, rig: FilesRig, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        await rig.fill("one", CREDS, {("pre-key", "1"): PAIR})
        one = rig.root / "one"
        monkeypatch.setattr(files, "MAX_BYTES", 1000)
        (one / "tctoken-1-2@lid.json").write_text("{}")
        (one / "whatever.json").write_text("{}")
        (one / "creds.json.bak").write_text(json.dumps(CREDS))
        (one / "pre-key-2.json").write_text('{"public":{"type":"Buf')
        (one / "pre-key-3.json").write_bytes(b"")
        (one / "pre-key-4.json").write_bytes("\ufeff{}".encode())
        (one / "pre-key-5.json").write_text(f'"{"x" * 1000}"')
        (one / "pre-key-6.json").mkdir()
        os.mkfifo(one / "pre-key-7.json")
        (one / "notes.txt").write_text("x")
        with socket.socket(socket.AF_UNIX) as listening:
            monkeypatch.chdir(one)  # the name of a socket is short
            listening.bind("pre-key-8.json")
        async with rig.source() as source, source.snapshot() as snapshot:
            found = await snapshot.read("one")
        assert found.creds is not None
        assert [row.key_id for row in found.rows] == ["1"]
        assert {fault.where: fault.kind.value for fault in found.faults} == {
            "creds.json.bak": "foreign",
            "notes.txt": "foreign",
            "pre-key-2.json": "torn",
            "pre-key-3.json": "torn",
            "pre-key-4.json": "torn",
            "pre-key-5.json": "foreign",
            "pre-key-6.json": "foreign",
            "pre-key-7.json": "foreign",
            "pre-key-8.json": "foreign",
            "tctoken-1-2@lid.json": "ambiguous",
            "whatever.json": "foreign",
        }

    @pytest.mark.parametrize(
        "torn", [b"", b'{"noiseKey":{"private":{"type":"Buffer","da', b"\xff\xfe{\0}\0", b"{}\0\0"]
    )
    async def test_torn_creds_are_a_fault_and_never_creds(self, rig: FilesRig, torn: bytes) -> None:
        await rig.fill("one", CREDS, KEYS)
        (rig.root / "one" / "creds.json").write_bytes(torn)
        async with rig.source() as source, source.snapshot() as snapshot:
            found = await snapshot.read("one")
        assert found.creds is None
        assert [fault.kind for fault in found.faults] == [FaultKind.torn_creds]

    async def test_a_single_folder_is_one_session(self, rig: FilesRig) -> None:
        await rig.fill("one", CREDS, KEYS)
        async with await open_source(f"files:{rig.root / 'one'}") as source:
            async with source.snapshot() as snapshot:
                assert [name async for name in snapshot.sessions()] == ["one"]
                same(await snapshot.read("one"), CREDS, KEYS)
            with pytest.raises(SourceError):
                await source.write("two", text(CREDS), [])
        assert sorted(os.listdir(rig.root)) == ["one"]

    async def test_a_whole_write_leaves_strangers_files_alone(self, rig: FilesRig) -> None:
        await rig.fill("one", CREDS, KEYS)
        (rig.root / "one" / "notes.txt").write_text("x")
        async with rig.source() as source:
            await source.write("one", text(CREDS), [Write("pre-key", "9", text(PAIR))], whole=True)
        assert sorted(os.listdir(rig.root / "one")) == ["creds.json", "notes.txt", "pre-key-9.json"]

    async def test_what_a_dead_writer_left_behind_is_nothing(self, rig: FilesRig) -> None:
        await rig.fill("one", CREDS, KEYS)
        (rig.root / "one" / ".authstore-x").write_text("{")
        async with rig.source() as source, source.snapshot() as snapshot:
            same(await snapshot.read("one"), CREDS, KEYS)

    async def test_what_is_replaced_or_new_stays_its_readers(self, rig: FilesRig) -> None:
        """Baileys takes a file that it may not read for none, and begins a new identity."""
        if os.geteuid() != 0:
            pytest.skip("only root gives files away")
        await rig.fill("one", CREDS, {("pre-key", "1"): PAIR})
        one = rig.root / "one"
        for path in (one, *one.iterdir()):
            os.chown(path, 12345, 23456)
        (one / "creds.json").chmod(0o640)
        async with rig.source() as source:
            for whole in (False, True):
                await source.write("one", text(CREDS), [Write(*key, text(PAIR)) for key in TWO_KEYS], whole=whole)
                about = {path.name: path.stat() for path in one.iterdir()}
                assert len(about) == 3
                assert {(each.st_uid, each.st_gid) for each in about.values()} == {(12345, 23456)}
                assert about["creds.json"].st_mode & 0o777 == about["pre-key-2.json"].st_mode & 0o777 == 0o640

    async def test_a_file_of_another_user_is_not_replaced_by_one_that_it_cannot_read(self) -> None:
        if os.geteuid() != 0:
            pytest.skip("only root makes files of two users")
        with TemporaryDirectory() as free:  # unlike a test's own folder, others can get there
            os.chmod(free, 0o755)
            rig = FilesRig(Path(free))
            await rig.fill("one", CREDS, {("pre-key", "1"): PAIR})
            one = rig.root / "one"
            os.chown(one, 12345, 12345)
            before = {path.name: path.read_bytes() for path in one.iterdir()}
            program = [sys.executable, "-c", WRITE_AS_ANOTHER, str(rig.root)]
            process = await asyncio.create_subprocess_exec(*program, cwd=FIXTURES.parent)
            assert await process.wait() == 42
            assert {path.name: path.read_bytes() for path in one.iterdir()} == before

    async def test_a_folder_that_vanished_is_away_and_not_begun_anew(self, rig: FilesRig) -> None:
        await rig.fill("one", CREDS, KEYS)
        async with rig.source() as source:
            (rig.root / "one").rename(rig.root.parent / "elsewhere")
            with pytest.raises(SourceAway):
                await source.write("one", None, [Write("pre-key", "9", text(PAIR))])
            assert list(rig.root.iterdir()) == []

    async def test_two_keys_of_one_file_are_not_merged(self, rig: FilesRig) -> None:
        await rig.fill("one", CREDS, KEYS)
        before = await rig.contents()
        async with rig.source() as source:
            with pytest.raises(SourceError, match="one file"):
                await source.write("one", None, [Write("session", name, text(PAIR)) for name in ("a:1", "a-1")])
        assert [entry[3] for entry in await rig.contents()] == [entry[3] for entry in before]

    async def test_a_file_and_a_map_are_refused(self, rig: FilesRig) -> None:
        await rig.fill("one", CREDS, {})
        with pytest.raises(WrongSource):
            await open_source(f"files:{rig.root / 'one' / 'creds.json'}")
        with pytest.raises(BadInput):
            await open_source(f"files:{rig.root}", {"table": "x"})


@pytest.mark.parametrize(("release", "version"), [("6", "6.7.24"), ("7", "7.0.0-rc14")])
async def test_a_folder_of_real_baileys_is_read_whole_and_one_of_ours_is_read_by_it(
    tmp_path: Path, release: str, version: str
) -> None:
    state = states.load(version)
    await put_folder(release, tmp_path / "shop", state)
    async with await open_source(f"files:{tmp_path / 'shop'}") as source, source.snapshot() as snapshot:
        same(await snapshot.read("shop"), state["creds"], keys_of(state))
    async with await open_source(f"files:{tmp_path}") as source:
        writes = [Write(*name, text(value)) for name, value in keys_of(state).items()]
        await source.write("back", text(state["creds"]), writes, whole=True)
    assert sorted(os.listdir(tmp_path / "back")) == sorted(os.listdir(tmp_path / "shop"))
    read = await get_folder(release, tmp_path / "back", state)
    assert digest("", text(read["creds"])) == digest("", text(state["creds"]))
    for (ktype, key_id), value in keys_of(state).items():
        assert digest(ktype, text(read["keys"][ktype][key_id])) == digest(ktype, text(value)), ktype


async def test_a_folder_made_by_6_17_16_is_read_whole(tmp_path: Path) -> None:
    """The folder itself is a fixture: that release is not installed where tests run (``fixtures/older``)."""
    folder = tmp_path / "shop"
    folder.mkdir()
    for name, content in json.loads((FIXTURES / "multi-file" / "6.17.16.json").read_text()).items():
        (folder / name).write_text(content)
    state = states.load("6.17.16")
    async with await open_source(f"files:{folder}") as source, source.snapshot() as snapshot:
        same(await snapshot.read("shop"), state["creds"], keys_of(state))


def keys_of(state: dict[str, Any]) -> dict[tuple[str, str], Any]:
    return {(ktype, key_id): value for ktype, ids in state["keys"].items() for key_id, value in ids.items()}
