"""Master keys on the command line: rotations under writers, kills and missed by a sleeping service."""

import base64
import fcntl
import os
import re
import secrets
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import Cli, Done, assert_all_there, commit, fill, fresh
from embedded_service import PLAIN, as_root, wait_gone
from service_process import ServiceProcess

from service.embedded import running
from service.vault import MasterKeys

LOCKS = Path("/proc/locks")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ServiceProcess]:
    """A service of this test's own, not started."""
    service = ServiceProcess(tmp_path / "data")
    yield service
    if service._process is not None:
        service.stop()


def key_status(cli: Cli) -> tuple[list[str], list[str]]:
    """Fingerprints of the keys in use and of the current one."""
    rows = cli.good("key", "status", "--format", "json").json
    return [row["id"] for row in rows if row["in_use"]], [row["id"] for row in rows if row["current"]]


def test_the_keys_rotate_under_writers(own):
    cli = Cli(own.data_dir)
    own.start()
    made = fill(own, 300)
    with writing(own) as written:
        for _ in range(3):
            before = key_status(cli)
            assert "wrapped by the current master key" in cli.good("key", "rotate").out
            assert key_status(cli) != before
            time.sleep(0.5)
    assert len(written.names) > 20
    assert max(written.statuses) < 500, sorted(set(written.statuses))
    in_use, current = key_status(cli)
    assert in_use == current, "an old key is still in use"
    own.stop()
    own.start()
    assert_all_there(own, made | written.names)


def test_a_killed_rotation_is_finished_by_running_it_again(own):
    cli = Cli(own.data_dir)
    own.start()
    made = fill(own, 1500)
    began = time.monotonic()
    cli.good("key", "rotate")
    took = time.monotonic() - began
    with writing(own) as written:
        for part in range(1, 6):
            rotation = cli.start("key", "rotate")
            time.sleep(took * (0.4 + part / 10))
            rotation.kill()
            rotation.wait()
        own.kill9()
        own.start()
        cli.good("key", "rotate")
    in_use, current = key_status(cli)
    assert in_use == current
    own.kill9()
    own.start()
    assert_all_there(own, made | written.names)


def test_a_service_that_missed_a_rotation_makes_nothing_under_the_old_key(own):
    """Its old key is thrown away while it sleeps: what it stores when it wakes must open without that key."""
    cli = Cli(own.data_dir)
    own.start()
    made = fill(own, 20)
    os.kill(own.pid, signal.SIGSTOP)
    cli.good("key", "rotate")
    keep_only_first_key(own.data_dir)
    later: dict[str, str] = {fresh("later"): secrets.token_hex(4) for _ in range(8)}
    statuses: list[int] = []
    asking = [
        threading.Thread(target=lambda name=name, value=value: statuses.append(commit(own, name, value)))
        for name, value in later.items()
    ]
    for each in asking:
        each.start()
    time.sleep(0.3)  # the requests wait in its socket: it meets them before it looks for keys
    os.kill(own.pid, signal.SIGCONT)
    for each in asking:
        each.join()
    assert statuses == [200] * len(later)
    in_use, current = key_status(cli)
    assert in_use == current
    own.kill9()
    own.start()
    assert_all_there(own, made | later)


def test_the_old_key_may_go_after_a_rotation_and_the_current_one_may_not(own):
    cli = Cli(own.data_dir)
    own.start()
    made = fill(own, 10)
    cli.good("key", "rotate")
    own.stop()
    keep_only_first_key(own.data_dir)
    own.start()
    assert_all_there(own, made)
    own.stop()
    key_file = own.data_dir / "master.key"
    kept = key_file.read_text()
    key_file.write_text(base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
    done = cli("serve")
    assert done.code == 1
    assert "the configured master key does not open this database" in done.err
    key_file.write_text(kept)
    own.start()
    assert_all_there(own, made)


def test_a_running_service_never_replaces_a_key_file_that_is_gone(own):
    own.start()
    made = fill(own, 3)
    key_file = own.data_dir / "master.key"
    kept = key_file.read_text()
    key_file.unlink()
    time.sleep(2.5)
    assert not key_file.exists()
    assert commit(own, fresh("new"), 1) == 200
    assert_all_there(own, made)
    done = Cli(own.data_dir)("key", "rotate")
    assert done.code == 2
    assert "is missing" in done.err
    assert not key_file.exists()
    key_file.write_text(kept)
    assert_all_there(own, made)
    assert own.log.read_text().count("housekeeping failed") == 1, "said once, not every second"


def test_rotations_at_once_keep_every_key(own):
    """Each reads the file, makes a key and puts the file back: none may overwrite what another has put there."""
    cli = Cli(own.data_dir)
    own.start()
    made = fill(own, 20)
    first = (own.data_dir / "master.key").read_text().split()
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: cli.good("key", "rotate"), range(3)))
    keys = (own.data_dir / "master.key").read_text().split()
    assert len(keys) == 4
    assert keys[-1:] == first
    in_use, current = key_status(cli)
    assert in_use == current == [MasterKeys([base64.b64decode(keys[0])]).current]
    time.sleep(1.5)  # the service has looked for keys
    made |= fill(own, 2)
    own.stop()
    own.start()
    assert_all_there(own, made)
    assert not list(own.data_dir.glob(".master.key*")), "nothing unfinished is left"


def test_a_rotation_waits_for_another_at_the_same_file(own):
    own.start()
    key_file = own.data_dir / "master.key"
    before = key_file.read_text()
    with rotation_waiting(own.data_dir):
        assert key_file.read_text() == before
    assert key_file.read_text().endswith(before)
    assert key_file.read_text() != before


@pytest.mark.parametrize("wrong", ["no database", "another key"])
def test_a_rotation_that_cannot_begin_changes_no_key(own, wrong):
    """A running service would make sessions under a key that the rotation brought and its copies do not have."""
    own.start()
    fill(own, 1)
    own.stop()
    key_file = own.data_dir / "master.key"
    if wrong == "no database":
        (own.data_dir / "pg").rename(own.data_dir.parent / "elsewhere")
    else:
        key_file.write_text(base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
    before = key_file.read_text()
    done = Cli(own.data_dir)("key", "rotate")
    assert done.code == (2 if wrong == "no database" else 1)
    assert "a new key" not in done.out
    assert key_file.read_text() == before


def test_a_rotation_that_fails_after_its_new_key_says_that_there_is_one(own):
    own.start()
    made = fill(own, 5)
    key_file = own.data_dir / "master.key"
    before = key_file.read_text()
    postgres = int((own.data_dir / "pg" / "postmaster.pid").read_text().split()[0])
    with rotation_waiting(own.data_dir) as rotation:
        own.kill9()
        assert wait_gone(postgres)
    done = rotation.result()
    assert done.code == 1
    assert f"a new key stands first in {key_file}" in done.out
    assert key_file.read_text().endswith(before)
    assert len(key_file.read_text().split()) == 2
    own.start()
    assert_all_there(own, made)
    assert "5 data keys" in Cli(own.data_dir).good("key", "rotate").out


@contextmanager
def rotation_waiting(data_dir: Path) -> Iterator["Future[Done]"]:
    """A rotation that is open and has not changed the key file, for as long as the context is open."""
    held = os.open(data_dir, os.O_RDONLY)
    with ThreadPoolExecutor(1) as pool:
        try:
            fcntl.flock(held, fcntl.LOCK_EX)
            rotation = pool.submit(Cli(data_dir), "key", "rotate")
            waits = re.compile(rf"-> FLOCK .*:{os.fstat(held).st_ino} ")
            while not rotation.done() and not waits.search(LOCKS.read_text()):
                time.sleep(0.05)
            assert not rotation.done()
            yield rotation
        finally:
            os.close(held)


@as_root
def test_a_rotation_by_root_leaves_the_file_to_its_owner(own):
    """`sudo authstore key rotate` beside a service of a plain user."""
    own.start()
    own.stop()
    key_file = own.data_dir / "master.key"
    shutil.chown(key_file, PLAIN, PLAIN)
    key_file.chmod(0o640)
    before = key_file.stat()
    Cli(own.data_dir).good("key", "rotate")
    after = key_file.stat()
    assert (after.st_uid, after.st_gid, after.st_mode) == (before.st_uid, before.st_gid, before.st_mode)
    assert after.st_ino != before.st_ino


def test_a_key_file_that_cannot_be_read_is_a_sentence(own):
    own.start()
    own.stop()
    key_file = own.data_dir / "master.key"
    key_file.unlink()
    key_file.mkdir()  # root reads any file
    for command in (("key", "rotate"), ("key", "status"), ("serve",)):
        done = Cli(own.data_dir)(*command)
        assert done.code == 2, done
        assert f"{key_file} cannot be used" in done.err


def test_a_running_service_makes_nothing_under_a_key_that_is_not_its_database_s(own):
    """It could not be started again with the right one. What it holds, it goes on serving."""
    own.start()
    made = fill(own, 2)
    key_file = own.data_dir / "master.key"
    kept = key_file.read_text()
    key_file.write_text(base64.b64encode(secrets.token_bytes(32)).decode() + "\n")
    wait_for_readiness(own, 503)
    assert commit(own, fresh("new"), 1) == 503
    assert_all_there(own, made)
    key_file.write_text(kept)
    wait_for_readiness(own, 200)
    assert commit(own, fresh("new"), 1) == 200
    own.stop()
    own.start()
    assert_all_there(own, made)


def wait_for_readiness(service: ServiceProcess, status: int) -> None:
    deadline = time.monotonic() + 30
    while service.ask("GET", "/health/ready")[0] != status:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_configured_keys_rotate(tmp_path):
    old, new = (base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2))
    data_dir = tmp_path / "data"
    cli = Cli(data_dir)
    ring = {"AUTHSTORE_MASTER_KEY": f"{new} {old}"}
    with ServiceProcess(data_dir, {"AUTHSTORE_MASTER_KEY": old}) as service:
        made = fill(service, 30)
        assert cli.good("key", "rotate", AUTHSTORE_MASTER_KEY=old).out.startswith("0 data keys")
        _assert_no_key_is_made(cli("key", "status"), data_dir)
    with ServiceProcess(data_dir, ring) as service, writing(service) as written:
        assert cli.good("key", "rotate", **ring).out.startswith("30 data keys")
    made |= written.names
    assert max(written.statuses) < 500
    rows = cli.good("key", "status", "--format", "json", AUTHSTORE_MASTER_KEY=new).json
    assert [(row["in_use"], row["current"], row["here"]) for row in rows] == [(False, False, False), (True, True, True)]
    assert rows[0]["retired_at"]
    with ServiceProcess(data_dir, {"AUTHSTORE_MASTER_KEY": new}) as service:
        assert_all_there(service, made)
    for command in (("serve",), ("key", "rotate"), ("sessions", "list")):
        done = cli(*command, AUTHSTORE_MASTER_KEY=old)
        assert done.code == 1
        assert "the configured master key does not open this database" in done.err


def test_a_key_file_rotates_without_a_restart(tmp_path):
    keys = tmp_path / "keys"
    keys.write_text(base64.b64encode(secrets.token_bytes(32)).decode())
    env = {"AUTHSTORE_MASTER_KEY_FILE": str(keys)}
    with ServiceProcess(tmp_path / "data", env) as service, writing(service) as written:
        made = fill(service, 5)
        keys.write_text(base64.b64encode(secrets.token_bytes(32)).decode() + "\n" + keys.read_text())
        time.sleep(1.5)  # writers use the new key before any rotation
        cli = Cli(tmp_path / "data", **env)
        cli.good("key", "rotate")
        keys.write_text(keys.read_text().splitlines()[0])
        assert key_status(cli)[0] == key_status(cli)[1]
        time.sleep(1.5)
    assert max(written.statuses) < 500
    with ServiceProcess(tmp_path / "data", env) as service:
        assert_all_there(service, made | written.names)


def test_a_folder_set_up_under_a_configured_key_gets_no_key_of_its_own(tmp_path):
    """It would look like the one that matters, and be kept in its place."""
    data_dir = tmp_path / "data"
    configured = {"AUTHSTORE_MASTER_KEY": base64.b64encode(secrets.token_bytes(32)).decode()}
    with ServiceProcess(data_dir, configured) as service:
        made = fill(service, 2)
    for command in (("serve",), ("sessions", "list"), ("doctor",), ("migrate", "list")):
        _assert_no_key_is_made(Cli(data_dir)(*command), data_dir)
    with ServiceProcess(data_dir, configured) as service:
        assert_all_there(service, made)


def test_a_first_start_killed_before_it_had_a_key_makes_one_later(tmp_path):
    data_dir = tmp_path / "data"
    with running(data_dir):
        pass  # the database is there, and nothing else
    with ServiceProcess(data_dir) as service:
        made = fill(service, 1)
        assert_all_there(service, made)


def _assert_no_key_is_made(done: Done, data_dir: Path) -> None:
    assert done.code == 2
    assert "AUTHSTORE_MASTER_KEY is not set" in done.err
    assert not list(data_dir.glob("*master.key*"))


def keep_only_first_key(data_dir: Path) -> None:
    """The operator drops the old keys."""
    key_file = data_dir / "master.key"
    assert len(key_file.read_text().split()) > 1
    key_file.write_text(key_file.read_text().split()[0] + "\n")


@dataclass
class Written:
    """What a writer did: sessions it was told are stored, and every status it saw."""

    names: dict[str, str]
    statuses: list[int]


@contextmanager
def writing(service: ServiceProcess) -> Iterator[Written]:
    """New sessions, commits and reads, one after the other, for as long as the context is open."""
    written, stop = Written({}, [200]), threading.Event()

    def write() -> None:
        while not stop.is_set():
            name, value = fresh("written"), secrets.token_hex(4)
            try:
                first = commit(service, name, "first")
                second = commit(service, name, value)
                got, _ = service.ask("GET", f"/v1/sessions/{name}/state")
            except OSError:  # somebody killed the service
                continue
            time.sleep(0.05)
            written.statuses += [first, second, got]
            if second == 200:
                written.names[name] = value

    writers = [threading.Thread(target=write) for _ in range(2)]
    for writer in writers:
        writer.start()
    try:
        yield written
    finally:
        stop.set()
        for writer in writers:
            writer.join()
