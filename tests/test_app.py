"""The service as it is installed elsewhere: a database of one's own, TLS, a unix socket, a pooler's way of talking."""

import base64
import http.client
import json
import os
import secrets
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from api import serve
from certificates import Authority
from cryptography.x509.oid import ExtendedKeyUsageOID
from external_postgres import ExternalPostgres
from service_process import COMMAND, ServiceProcess, free_port
from tls_front import TlsFront

MASTER_KEY = base64.b64encode(bytes(range(32))).decode()
BODY = {"keys": {"session": {"one": {"value": 1}}}}


def external(folder: Path, url: str, **env: str) -> ServiceProcess:
    """A service on a database that is not its own."""
    return ServiceProcess(folder / "data", {"AUTHSTORE_DATABASE_URL": url, "AUTHSTORE_MASTER_KEY": MASTER_KEY, **env})


def refused(folder: Path, **env: str) -> tuple[int, str]:
    """A start that must fail: exit code and what it says."""
    said = {"PATH": os.environ["PATH"], "AUTHSTORE_DATA_DIR": str(folder / "data"), "AUTHSTORE_PORT": str(free_port())}
    ran = subprocess.run([COMMAND, "serve"], env=said | env, capture_output=True, text=True, timeout=60, check=False)
    assert "Traceback" not in ran.stderr
    return ran.returncode, "\n".join(line for line in ran.stderr.splitlines() if not line.startswith("{"))


def kept(service: ServiceProcess) -> None:
    """It stores and gives back."""
    name = f"s-{secrets.token_hex(4)}"
    service.call("POST", f"/v1/sessions/{name}/commit", BODY)
    got = service.call("POST", f"/v1/sessions/{name}/keys/get", {"session": ["one"]})
    assert got == BODY["keys"]


# -- a database of one's own ----------------------------------------------------------------------------------------------


async def test_it_serves_on_a_database_of_ones_own(database_url, tmp_path):
    with external(tmp_path, database_url) as service:
        kept(service)
        backend = service.call("GET", "/health/database")
        assert (backend["status"], backend["role"], backend["writable"]) == ("ok", "primary", True)
    assert not (tmp_path / "data").exists(), "nothing of an embedded database was made"


async def test_the_master_key_must_be_configured_there(database_url, tmp_path):
    code, said = refused(tmp_path, AUTHSTORE_DATABASE_URL=database_url)
    assert code == 2
    assert (
        said == "authstore: AUTHSTORE_MASTER_KEY or AUTHSTORE_MASTER_KEY_FILE must be set with a database of your own."
    )
    assert not (tmp_path / "data").exists()
    connection = await asyncpg.connect(database_url)
    assert await connection.fetchval("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == 0
    await connection.close()


def test_without_a_first_token_only_made_tokens_work(plain_postgres, tmp_path):
    database_url = plain_postgres.url
    env = {"AUTHSTORE_DATABASE_URL": database_url, "AUTHSTORE_MASTER_KEY": MASTER_KEY, "PATH": os.environ["PATH"]}
    service = external(tmp_path, database_url)
    service.token = ""
    with service:
        assert service.ask("GET", "/v1/sessions")[0] == 401
        made = subprocess.run([COMMAND, "token", "create"], env=env, capture_output=True, text=True, check=True)
        service.token = made.stdout.strip()
        kept(service)


def test_it_waits_for_a_database_that_is_away_and_says_so(tmp_path):
    postgres = ExternalPostgres(tmp_path / "postgres")
    service = external(tmp_path, postgres.url)
    service.launch()
    try:
        _until(service, "/health/live", 200)
        assert service.ask("GET", "/health/ready") == (503, {"status": "unavailable", "reason": _AWAY})
        for method, path, body in (("GET", "/v1/sessions", None), ("POST", "/v1/sessions/s/commit", BODY)):
            status, problem = service.ask(method, path, body)
            assert (status, problem["type"]) == (503, "urn:authstore:problem:unavailable")
        with postgres:
            service.wait_ready()
            kept(service)
        # Its end is an outage, and no reason to stop.
        _until(service, "/health/ready", 503)
        assert service.ask("GET", "/health/live")[0] == 200
    finally:
        service.stop()


_AWAY = "The database is not available."


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_wrong_master_key_is_told_also_when_the_database_comes_later(tmp_path, workers):
    postgres = ExternalPostgres(tmp_path / "postgres")
    with postgres:
        with external(tmp_path, postgres.url) as service:
            kept(service)
        key = base64.b64encode(bytes(32)).decode()
        wrong = external(tmp_path, postgres.url, AUTHSTORE_MASTER_KEY=key, AUTHSTORE_WORKERS=workers)
        os.kill(_postmaster(tmp_path / "postgres"), signal.SIGSTOP)
        try:
            wrong.launch()
            _until(wrong, "/health/live", 200)
        finally:
            os.kill(_postmaster(tmp_path / "postgres"), signal.SIGCONT)
        assert wrong.wait(30) == 1
    said = wrong.log.read_text()
    assert "Traceback" not in said
    assert "WrongMasterKey" in said
    if workers == "1":
        assert "the configured master key does not open this database" in said


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda url: url.replace("sslmode=disable", "sslmode=verify-full&sslrootcert={ca}"), "offers no TLS"),
        (lambda url: url.replace("sslmode=disable", "sslmode=require"), "offers no TLS"),
        (lambda url: url.replace("postgres:", "postgres:x"), "refuses the user or the password"),
        (lambda url: url.replace("//postgres:", "//nobody:"), "refuses the user or the password"),
        (lambda url: url.replace("/postgres?", "/absent?"), "does not exist"),
    ],
)
def test_a_database_that_does_not_let_us_in_is_told_at_once(plain_postgres, authority, tmp_path, change, says):
    url = change(plain_postgres.url).replace("{ca}", str(authority.certificate))
    code, said = refused(tmp_path, AUTHSTORE_DATABASE_URL=url, AUTHSTORE_MASTER_KEY=MASTER_KEY)
    assert code == 1
    assert said.startswith("authstore: the database ")
    assert says in said
    assert plain_postgres._password not in said


def test_a_database_with_tls_is_verified_in_full(plain_postgres, authority, tmp_path):
    certificate, key = authority.issue("postgres", ExtendedKeyUsageOID.SERVER_AUTH)
    stranger = Authority.make(tmp_path, "stranger")
    with TlsFront(plain_postgres.port, certificate, key) as front:
        verified = f"sslmode=verify-full&sslrootcert={authority.certificate}"
        url = plain_postgres.url_at(front.port).replace("sslmode=disable", verified)
        with external(tmp_path, url) as service:
            kept(service)
        for spoiled in (
            url.replace(str(authority.certificate), str(stranger.certificate)),
            url.replace("127.0.0.1", "localhost"),
        ):
            code, said = refused(tmp_path, AUTHSTORE_DATABASE_URL=spoiled, AUTHSTORE_MASTER_KEY=MASTER_KEY)
            assert (code, "does not verify" in said) == (1, True), said


def test_a_pooler_that_was_not_named_is_told(tmp_path):
    """A stand-in that answers a start-up packet as PgBouncer 1.18 was seen to."""
    fields = b"SFATAL\0C08P01\0Munsupported startup parameter: plan_cache_mode\0\0"
    with socket.create_server(("127.0.0.1", 0)) as pooler:
        url = f"postgresql://u:p@127.0.0.1:{pooler.getsockname()[1]}/d?sslmode=disable"

        def answer() -> None:
            connection, _ = pooler.accept()
            with connection:
                connection.recv(4096)
                connection.sendall(b"E" + struct.pack("!i", len(fields) + 4) + fields)

        thread = threading.Thread(target=answer)
        thread.start()
        code, said = refused(tmp_path, AUTHSTORE_DATABASE_URL=url, AUTHSTORE_MASTER_KEY=MASTER_KEY)
        thread.join()
    assert code == 1
    assert said == "authstore: a transaction pooler stands before the database: set pooler to transaction"


async def test_behind_a_transaction_pooler_nothing_is_prepared(database_url):
    async with serve(database_url, pooler="transaction") as api:
        for n in range(20):
            await api.commit(f"s{n % 4}", {"keys": {"session": {str(n): n}}})
        assert (await api.get("s1", {"session": ["1", "5"]}))["session"] == {"1": 1, "5": 5}
        options = api.store.database._options()
        assert options["statement_cache_size"] == 0
        assert "server_settings" not in options
        async with api.store.database.connection() as connection:
            assert await connection.fetchval("SELECT count(*) FROM pg_prepared_statements") == 0


# -- TLS ------------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"), "authority")


@pytest.fixture(scope="module")
def plain_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExternalPostgres]:
    with ExternalPostgres(tmp_path_factory.mktemp("plain") / "pg") as postgres:
        yield postgres


@pytest.fixture(scope="module")
def tls_service(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[ServiceProcess]:
    """A service that speaks TLS and asks for client certificates; its health is asked over a unix socket."""
    folder = tmp_path_factory.mktemp("tls")
    certificate, key = authority.issue("server", ExtendedKeyUsageOID.SERVER_AUTH)
    service = ServiceProcess(
        folder / "data",
        {
            "AUTHSTORE_TLS_CERT": str(certificate),
            "AUTHSTORE_TLS_KEY": str(key),
            "AUTHSTORE_TLS_CLIENT_CA": str(authority.certificate),
            "AUTHSTORE_UNIX_SOCKET": str(folder / "http.sock"),
        },
    )
    service.launch()
    _until_healthy(service)
    yield service
    service.stop()


def asked(
    service: ServiceProcess, authority: Authority, client: tuple[Path, Path] | None, **options: ssl.TLSVersion
) -> int:
    """The status of a call over TLS, as a client that trusts this authority."""
    context = ssl.create_default_context(cafile=authority.certificate)
    for name, value in options.items():
        setattr(context, name, value)
    if client is not None:
        context.load_cert_chain(*client)
    connection = http.client.HTTPSConnection("127.0.0.1", service.port, timeout=10, context=context)
    connection.request("GET", "/v1/sessions", headers={"Authorization": f"Bearer {service.token}"})
    status = connection.getresponse().status
    connection.close()
    return status


def test_tls_asks_for_client_certificates_of_the_named_authority(tls_service, authority, tmp_path):
    client = authority.issue("client", ExtendedKeyUsageOID.CLIENT_AUTH)
    assert asked(tls_service, authority, client) == 200
    bare = authority.issue("bare-client", ExtendedKeyUsageOID.CLIENT_AUTH, bare=True)
    assert asked(tls_service, authority, bare) == 200, "which certificates do must not depend on the Python"
    stranger = Authority.make(tmp_path, "stranger").issue("client", ExtendedKeyUsageOID.CLIENT_AUTH)
    for refused_client in (None, stranger):
        with pytest.raises(OSError):  # noqa: PT011  TLS 1.3 tells it on the first read, in one of several classes
            asked(tls_service, authority, refused_client)
    with pytest.raises(ssl.SSLCertVerificationError):
        asked(tls_service, Authority.make(tmp_path, "other"), client)
    with pytest.warns(DeprecationWarning, match="TLSv1_1"), pytest.raises(OSError, match=r"(?i)version|protocol|eof"):
        asked(tls_service, authority, client, maximum_version=ssl.TLSVersion.TLSv1_1)
    with pytest.raises(OSError, match=r"(?i)reset|remote|closed|disconnected"):
        tls_service.ask("GET", "/health/live")


def test_tls_without_client_certificates(authority, tmp_path):
    certificate, key = authority.issue("server-alone", ExtendedKeyUsageOID.SERVER_AUTH)
    env = {"AUTHSTORE_TLS_CERT": str(certificate), "AUTHSTORE_TLS_KEY": str(key)}
    service = ServiceProcess(tmp_path / "data", env)
    service.launch()
    try:
        _until_healthy(service)
        assert asked(service, authority, None) == 200
        assert '"address":"https://127.0.0.1:' in service.log.read_text().replace(" ", "")
        alone = {"PATH": os.environ["PATH"], "AUTHSTORE_DATA_DIR": str(service.data_dir)}
        assert subprocess.check_output([COMMAND, "health"], env=alone, text=True).startswith("ok (https://")
    finally:
        service.stop()


def test_tls_files_that_do_not_fit_are_told(authority, tmp_path):
    certificate, _ = authority.issue("one", ExtendedKeyUsageOID.SERVER_AUTH)
    _, other_key = authority.issue("two", ExtendedKeyUsageOID.SERVER_AUTH)
    for key in (other_key, tmp_path / "absent", certificate):
        code, said = refused(tmp_path, AUTHSTORE_TLS_CERT=str(certificate), AUTHSTORE_TLS_KEY=str(key))
        assert (code, said) == (
            1,
            "authstore: tls_cert, tls_key or tls_client_ca is not readable PEM, or they do not fit together",
        )


def test_a_port_that_is_taken_is_told(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        code, said = refused(tmp_path, AUTHSTORE_PORT=str(port))
    assert (code, said) == (
        1,
        f"authstore: cannot listen on 127.0.0.1:{port}: EADDRINUSE: another process listens there; "
        "stop it, or change the port: AUTHSTORE_PORT or --port",
    )


# -- a unix socket --------------------------------------------------------------------------------------------------------


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=10)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.connect(str(self._path))


def test_it_listens_on_a_unix_socket_too_also_after_a_kill(tmp_path):
    path = tmp_path / "http.sock"
    service = ServiceProcess(tmp_path / "data", {"AUTHSTORE_UNIX_SOCKET": str(path)})
    for _ in range(2):
        service.start()
        connection = _UnixConnection(path)
        connection.request("GET", "/v1/sessions", headers={"Authorization": f"Bearer {service.token}"})
        answer = connection.getresponse()
        assert (answer.status, json.load(answer)) == (200, {"sessions": [], "next": None})
        connection.close()
        kept_status = service.ask("GET", "/health/live")[0]
        assert kept_status == 200
        service.kill9()


def test_no_core_file_can_hold_keys(tls_service):
    limits = Path(f"/proc/{tls_service.pid}/limits").read_text()
    (line,) = [line for line in limits.splitlines() if line.startswith("Max core file size")]
    assert line.split()[4:6] == ["0", "0"]


def _until(service: ServiceProcess, path: str, status: int) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            if service.ask("GET", path)[0] == status:
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise AssertionError(f"{path} never answered {status}:\n{service._tail()}")


def _until_healthy(service: ServiceProcess) -> None:
    """As an operator would ask: by the command line."""
    env = {"PATH": os.environ["PATH"], "AUTHSTORE_PORT": str(service.port), **service._env}
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if subprocess.run([COMMAND, "health"], env=env, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.2)
    raise AssertionError(service._tail())


def _postmaster(folder: Path) -> int:
    return int((folder / "data" / "postmaster.pid").read_text().split()[0])
