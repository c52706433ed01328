"""The command line as its users meet it: a process, beside a running service on the same data folder and without one."""

import base64
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

import asyncpg
import pytest
from api import creds
from certificates import Authority
from command_line import SESSION_TYPE, Cli, Done, commit, fresh, read
from cryptography.x509.oid import ExtendedKeyUsageOID
from service_process import ServiceProcess, free_port

from service.cli import container, doctor
from service.config import load_settings
from service.embedded import attach


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path_factory.mktemp("cli") / "data") as running:
        yield running


@pytest.fixture(scope="module")
def cli(service: ServiceProcess) -> Cli:
    """Commands beside the running service."""
    return Cli(service.data_dir, AUTHSTORE_PORT=str(service.port))


@pytest.fixture
def own(tmp_path: Path) -> Iterator[ServiceProcess]:
    """A service of this test's own, not started."""
    service = ServiceProcess(tmp_path / "data")
    yield service
    if service._process is not None:
        service.stop()


# -- usage ----------------------------------------------------------------------------------------------------------------


def test_help_names_every_command(cli):
    said = cli.good("--help").out
    for group in ("serve", "health", "doctor", "token", "key", "sessions", "schema"):
        assert group in said
    for command in ("serve", "key rotate", "sessions delete"):
        assert "Usage: authstore" in cli.good(*command.split(), "--help").out


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "nothing",
        "token",
        "token create --scope all",
        "token create --days 0",
        "token revoke",
        "sessions list --format yaml",
        "--nothing doctor",
        "serve --port many",
    ],
)
def test_wrong_usage_is_exit_2(cli, arguments):
    assert cli(*arguments.split()).code == 2


def test_common_options_may_stand_behind_the_command(cli, service, tmp_path):
    settings = tmp_path / "settings.toml"
    settings.write_text('port = "many"\n')
    for command in (["serve"], ["sessions", "list"], ["health"]):
        for given in (["--config", str(settings)], [f"--config={settings}"]):
            done = cli(*command, *given, AUTHSTORE_PORT="")
            assert done.code == 2
            assert done.err.startswith("authstore: port in the settings file must be"), done
    beside = Cli(tmp_path / "elsewhere")
    assert beside.good("sessions", "list", "--data-dir", str(service.data_dir), "--prefix", "none").out == "nothing\n"
    assert beside("sessions", "list", "--data-dir").code == 2
    assert beside("sessions", "show", "--", "--config").err.startswith("authstore: there is no database in")


@pytest.mark.parametrize("command", ["serve", "key rotate", "token create", "sessions list", "schema apply", "doctor"])
def test_an_unknown_setting_stops_every_command_before_it_does_anything(tmp_path, command):
    cli = Cli(tmp_path / "data", AUTHSTORE_TOKN="secret")
    done = cli(*command.split())
    assert done.code == 2
    assert done.out == ""
    assert done.err == "authstore: AUTHSTORE_TOKN is not a setting: did you mean AUTHSTORE_TOKEN?\n"
    assert not (tmp_path / "data").exists()


def test_wrong_settings_are_told_all_at_once_without_their_values(tmp_path):
    done = Cli(tmp_path / "data", AUTHSTORE_PORT="secret", AUTHSTORE_MASTER_KEY="secret", AUTHSTORE_WORKERS="0")(
        "serve"
    )
    assert done.code == 2
    assert len(done.err.splitlines()) == 3
    assert "secret" not in done.err
    assert not (tmp_path / "data").exists()


def test_a_data_folder_that_cannot_be_one_is_a_sentence(tmp_path):
    (tmp_path / "file").write_text("x")
    done = Cli(tmp_path / "file")("sessions", "list")
    assert done.code == 1
    assert done.err.startswith("authstore: ")
    assert (tmp_path / "file").read_text() == "x"


def test_a_database_that_is_away_is_a_sentence(tmp_path):
    url = f"postgresql://u:hidden@127.0.0.1:{free_port()}/d"
    key = base64.b64encode(bytes(32)).decode()
    done = Cli(tmp_path / "data")("sessions", "list", AUTHSTORE_DATABASE_URL=url, AUTHSTORE_MASTER_KEY=key)
    assert (done.code, done.err) == (1, "authstore: The database is not available.\n")


def test_what_nobody_foresaw_shows_its_class_and_place_alone(cli, service):
    code = (
        "import sys; from service.cli import main, sessions\n"
        "async def bad(store, caller, prefix):\n    secret = prefix; raise ValueError(secret)\n"
        "sessions._all = bad; sys.argv = ['authstore', 'sessions', 'list', '--prefix', 'hidden']; main.main()"
    )
    env = {"PATH": os.environ["PATH"], "AUTHSTORE_DATA_DIR": str(service.data_dir)}
    ran = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert json.loads(ran.stderr)["error"] == "ValueError"
    assert "hidden" not in ran.stderr


# -- token ----------------------------------------------------------------------------------------------------------------


def test_a_token_works_until_it_is_revoked(cli, service):
    token = cli.good("token", "create", "--label", "first worker").out.strip()
    other = ServiceProcess(service.data_dir)
    other.url, other.token = service.url, token
    assert commit(other, fresh("tok"), 1) == 200
    (row,) = [row for row in cli.good("token", "list", "--format", "json").json if row["label"] == "first worker"]
    assert (row["tenant"], row["scope"], row["revoked_at"]) == ("default", "write", None)
    assert (
        token.split("_", 2)[2] not in cli.good("token", "list").out + cli.good("token", "list", "--format", "json").out
    )
    assert cli.good("token", "revoke", row["id"]).out == ""
    time.sleep(1.1)  # how long a found token is believed
    assert other.ask("GET", "/v1/sessions")[0] == 401
    assert cli("token", "revoke", row["id"]) == Done(
        1, "", "authstore: there is no such token, or it is revoked already\n"
    )
    (row,) = [row for row in cli.good("token", "list", "--format", "json").json if row["label"] == "first worker"]
    assert row["revoked_at"]


def test_a_token_opens_its_tenant_in_its_scope(cli, service):
    name = fresh("mine")
    assert commit(service, name, 1) == 200
    other = ServiceProcess(service.data_dir)
    other.url = service.url
    other.token = cli.good("token", "create", "--tenant", "acme", "--scope", "read", "--days", "1").out.strip()
    assert other.ask("GET", f"/v1/sessions/{name}")[0] == 404
    assert commit(other, name, 1) == 403
    assert cli("token", "create", "--tenant", "a/b").code == 1
    assert cli("token", "create", "--label", "x" * 101).code == 1


def test_commands_without_a_service_start_its_postgres_and_stop_it(own):
    cli = Cli(own.data_dir)
    own.start()
    own.stop()
    token = cli.good("token", "create").out.strip()
    assert attach(own.data_dir) is None
    assert _postgres_of(own.data_dir) == []
    own.start()
    own.token = token
    assert commit(own, "s", 1) == 200
    own.stop()
    assert [row["session"] for row in cli.good("sessions", "list", "--format", "json").json] == ["s"]
    assert _postgres_of(own.data_dir) == []


@pytest.mark.parametrize(
    "command", ["sessions list", "token create", "doctor", "schema apply", "check --all", "key status"]
)
def test_a_wrong_folder_does_not_become_an_installation(tmp_path, command):
    done = Cli(tmp_path / "typo")(*command.split())
    assert (done.code, done.out) == (2, "")
    assert f"there is no database in {tmp_path / 'typo'}" in done.err
    assert not (tmp_path / "typo").exists()


# -- sessions -------------------------------------------------------------------------------------------------------------


def test_sessions_are_listed_shown_deleted_and_restored(cli, service):
    prefix = fresh("listed")
    names = [f"{prefix}-{n}" for n in range(3)]
    for name in names:
        commit(service, name, "value")
    service.call("POST", f"/v1/sessions/{names[0]}/commit", {"creds": creds()})
    rows = cli.good("sessions", "list", "--prefix", prefix, "--format", "json").json
    assert [row["session"] for row in rows] == names
    assert [row["paired"] for row in rows] == [True, False, False]
    table = cli.good("sessions", "list", "--prefix", prefix).out
    assert all(name in table for name in names)
    shown = cli.good("sessions", "show", names[0], "--format", "json").json
    assert (shown["version"], shown["keys"], shown[f"keys {SESSION_TYPE}"]) == (2, 1, 1)
    assert "can be restored until" in cli.good("sessions", "delete", names[0]).out
    assert service.ask("GET", f"/v1/sessions/{names[0]}")[0] == 410
    assert cli("sessions", "show", names[0]).code == 1
    gone = next(
        each for each in cli.good("sessions", "deleted", "--format", "json").json if each["session"] == names[0]
    )
    assert gone["keys"] == 1
    assert gone["restorable until"] > gone["deleted"]
    assert cli.good("sessions", "deleted", "--tenant", "acme").out == "nothing\n"
    assert cli.good("sessions", "restore", names[0]).out == "restored\n"
    assert cli.good("sessions", "restore", names[0]).out == "not deleted, and left as it is\n"
    assert names[0] not in cli.good("sessions", "deleted").out
    assert read(service, names[0]) == "value"
    assert cli.good("sessions", "delete", "--purge", names[0]).out == "destroyed\n"
    assert cli("sessions", "restore", names[0]).code == 1
    assert service.ask("GET", f"/v1/sessions/{names[0]}")[0] == 404
    assert [row["session"] for row in cli.good("sessions", "list", "--prefix", prefix, "--format", "json").json] == (
        names[1:]
    )


def test_a_lease_is_ended_after_showing_its_holder(cli, service):
    """Of a bot that was killed: who is to follow it need not wait."""
    name = fresh("released")

    def lease(holder: str) -> int:
        return service.ask("POST", f"/v1/sessions/{name}/lease", {"holder": holder, "ttl_s": 3600})[0]

    assert lease("bot1") == 200
    assert lease("bot2") == 423
    asked = cli("sessions", "release", name)
    assert (asked.code, asked.out.strip()) == (1, "")
    assert asked.err.startswith("leased by bot1 until 20")
    assert "Only when its holder is gone" in asked.err
    assert lease("bot2") == 423
    assert cli("sessions", "release", name, "--yes", "--tenant", "acme").code == 1
    done = cli("sessions", "release", name, "--yes")
    assert (done.code, done.out) == (0, "released\n")
    assert cli.good("sessions", "release", name).out == "not leased, and left as it is\n"
    assert lease("bot2") == 200
    shown = cli.good("sessions", "show", name, "--format", "json").json
    assert (shown["leased by"], shown["mirrored"], shown["waiting for the mirror"]) == ("bot2", False, 0)
    assert cli("sessions", "release", fresh("absent")).err == "authstore: There is no such session.\n"


def test_sessions_of_another_tenant_are_not_there(cli, service):
    name = fresh("other")
    commit(service, name, 1)
    assert cli.good("sessions", "list", "--tenant", "acme", "--format", "json").json == []
    assert cli.good("sessions", "list", "--tenant", "acme").out == "nothing\n"
    for command in ("show", "delete", "restore"):
        done = cli("sessions", command, name, "--tenant", "acme")
        assert (done.code, done.err) == (1, "authstore: There is no such session.\n")
    assert read(service, name) == 1


def test_a_name_that_is_none_is_refused_without_an_echo(cli):
    for command in ("show", "delete", "restore"):
        done = cli("sessions", command, "hidden/name")
        assert done.code == 1
        assert "hidden" not in done.err + done.out


# -- schema, health, doctor -----------------------------------------------------------------------------------------------


async def test_schema_is_told_and_applied(database_url, tmp_path):
    cli = Cli(tmp_path / "data", AUTHSTORE_DATABASE_URL=database_url)
    before = cli("schema", "status")
    assert before.code == 3
    assert before.out.splitlines()[0] == "0001_sessions.sql"
    assert cli("schema", "status").out == before.out, "status changes nothing"
    assert cli.good("schema", "apply").out == before.out
    assert cli.good("schema", "apply").out == "nothing to apply\n"
    assert cli.good("schema", "status").out == "up to date\n"
    connection = await asyncpg.connect(database_url)
    await connection.execute("INSERT INTO schema_versions (version, name, checksum) VALUES (999, 'later', '')")
    await connection.close()
    for command in ("status", "apply"):
        done = cli("schema", command)
        assert done.code == 1
        assert "newer than this release" in done.err
    assert not (tmp_path / "data").exists()


def test_health_is_what_the_service_says(cli, tmp_path):
    assert cli.good("health").out.startswith("ok (http://127.0.0.1:")
    done = cli("health", AUTHSTORE_PORT=str(free_port()))
    assert done.code == 1
    assert done.err.startswith("no answer from http://127.0.0.1:")


def test_doctor_has_findings(cli, service):
    done = cli("doctor", "--format", "json")
    assert done.code == 0
    rows = {row["check"]: (row["verdict"], row["says"]) for row in done.json}
    assert rows["master key"][0] == "note"
    assert "keep a copy elsewhere, without it nothing can be opened" in rows["master key"][1]
    assert rows["integrity"] == ("note", "never checked: run authstore check --all")
    assert rows["service"] == ("ok", f"ready on {service.url}")
    assert rows["mirrors"] == ("ok", "no commit waits")
    others = rows.keys() - {"master key", "integrity"}
    assert {rows[check][0] for check in others} == {"ok"}
    away = cli("doctor", AUTHSTORE_PORT=str(free_port()))
    assert away.code == 0
    assert "no answer from http://127.0.0.1:" in away.out
    open_to_all = cli("doctor", AUTHSTORE_HOST="0.0.0.0")
    assert open_to_all.code == (0 if container.is_inside() else 3)


def test_plain_http_is_a_finding_where_the_network_can_be_seen():
    """In a container the service listens on all of its addresses, and doctor said 3 for ever."""
    everywhere = load_settings(environ={}, host="0.0.0.0")
    assert doctor.transport(everywhere, contained=False)["verdict"] == "warning"
    assert doctor.transport(everywhere, contained=True)["verdict"] == "note"
    assert doctor.transport(load_settings(environ={}), contained=False)["verdict"] == "ok"


def test_doctor_says_what_checks_left(own):
    """And that no service runs, where that can be known."""
    own.start()
    name = fresh("unsound")
    own.call("POST", f"/v1/sessions/{name}/commit", {"keys": {"pre-key": {"1": {"private": "x"}}}})
    cli = Cli(own.data_dir)
    cli("check", "--all")
    with_service = {row["check"]: row for row in cli("doctor", "--format", "json").json}
    assert with_service["service"]["says"] == f"ready on {own.url}"
    own.stop()
    done = cli("doctor", "--format", "json")
    assert done.code == 3
    rows = {row["check"]: (row["verdict"], row["says"]) for row in done.json}
    assert rows["service"] == ("note", "none runs on this data folder")
    assert rows["integrity"][0] == "warning"
    assert rows["integrity"][1].endswith("open since the last check: authstore check --all --restart shows them")


def test_the_release_is_told(cli):
    assert cli.good("--version").out == version("baileys-auth-store") + "\n"


def _postgres_of(data_dir: Path) -> list[int]:
    """Processes whose working folder is this database."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").resolve() == (data_dir / "pg").resolve():
                found.append(int(process.name))
        except OSError:
            continue
    return found


@pytest.mark.parametrize(
    ("command", "unneeded"),
    [
        (None, ("aiohttp", "asyncpg", "service.store", "service.http", "service.migrate")),
        ("health", ("aiohttp", "asyncpg", "service.store", "service.http", "service.migrate")),
        ("sessions", ("aiohttp", "service.http", "service.migrate")),
    ],
)
def test_a_command_imports_what_it_needs(command, unneeded):
    """Containers ask for their health every few seconds: it is not to cost them a second each."""
    code = "import sys; from service.cli.main import app; import typer; root = typer.main.get_command(app)\n"
    code += f"if {command!r}: root.get_command(None, {command!r})\n"
    code += f"print([name for name in {unneeded} if name in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_every_command_is_there_by_its_name(tmp_path):
    names = {
        "serve",
        "health",
        "doctor",
        "check",
        "bench",
        "export",
        "import",
        "token",
        "key",
        "sessions",
        "schema",
        "migrate",
    }
    cli = Cli(tmp_path / "data", NO_COLOR="1", COLUMNS="100")
    listed = cli.good("--help").out
    for name in names:
        assert f" {name} " in listed
        assert f"authstore {name} " in cli.good(name, "--help").out
    wrong = cli("serv")
    assert wrong.code == 2
    assert "serve" in wrong.err


def test_health_follows_the_folder_and_answers_for_no_other_service(service, tmp_path):
    """The default port may well be another's: with a folder alone, its service is asked wherever that listens."""
    beside = Cli(service.data_dir)
    assert beside.good("health").out == f"ok ({service.url})\n"
    assert beside.good("health", "--url", service.url).out == f"ok ({service.url})\n"
    other = Cli(tmp_path / "x1")
    done = other("health")
    assert (done.code, done.out) == (1, "")
    assert done.err.startswith(f"no service runs on {tmp_path / 'x1'}")
    assert other.good("health", AUTHSTORE_PORT=str(service.port)).out == f"ok ({service.url})\n"
    assert other.good("health", "--url", service.url).out == f"ok ({service.url})\n"
    shutil.copytree(service.data_dir, tmp_path / "x1", ignore=shutil.ignore_patterns("pg", "run", "pgsql"))
    assert other("health").code == 1, "a copy names the original"
    for url in ("127.0.0.1", "ftp://x", "http://x:y"):
        assert other("health", "--url", url).code == 2


def test_health_believes_a_certificate_unseen_of_its_own_service_alone(tmp_path):
    """The own service's is for its public name; another address has to show one that is trusted."""
    certificate, key = Authority.make(tmp_path, "authority").issue("server", ExtendedKeyUsageOID.SERVER_AUTH)
    tls = {"AUTHSTORE_TLS_CERT": str(certificate), "AUTHSTORE_TLS_KEY": str(key)}
    own = ServiceProcess(tmp_path / "data", tls)
    cli = Cli(own.data_dir)
    own.launch()
    try:
        deadline = time.monotonic() + 60
        while cli("health").code:
            assert time.monotonic() < deadline, own.log.read_text()[-2000:]
        assert cli.good("health").out == f"ok (https://127.0.0.1:{own.port})\n"
        place = {"AUTHSTORE_HOST": "127.1", "AUTHSTORE_PORT": str(own.port)}  # an address that does not say where it is
        assert cli.good("health", **tls, **place).out == f"ok (https://127.1:{own.port})\n"
        for settings in ({}, tls):
            done = cli("health", "--url", f"https://127.1:{own.port}", **settings)
            assert (done.code, done.err) == (1, f"no answer from https://127.1:{own.port}\n")
    finally:
        own.stop()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_health_hears_of_a_service_that_ended_or_was_killed(tmp_path, workers):
    path = tmp_path / "http.sock"
    own = ServiceProcess(tmp_path / "data", {"AUTHSTORE_WORKERS": workers, "AUTHSTORE_UNIX_SOCKET": str(path)})
    cli = Cli(own.data_dir)
    own.start()
    assert cli.good("health").out == f"ok (unix:{path})\n"
    own.kill9()
    assert cli("health").err.startswith("no service runs on")
    own.start()
    assert cli.good("health").out == f"ok (unix:{path})\n"
    assert path.is_socket()
    own.stop()
    assert cli("health").err.startswith("no service runs on")
    assert not path.exists()
    assert not (own.data_dir / "listening").exists()
