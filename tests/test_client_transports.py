"""The Node client reaches the service over TCP, TLS with certificates of both sides, and a unix socket."""

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from cryptography.x509.oid import ExtendedKeyUsageOID
from service_process import ServiceProcess

SCRIPT = Path(__file__).parent.parent / "client" / "test" / "open-once.mjs"


def _open(service: ServiceProcess, url: str, **more: str) -> Any:
    options = {"url": url, "token": service.token, "session": "transports", **more}
    done = subprocess.run(["node", SCRIPT, json.dumps(options)], capture_output=True, check=True, timeout=60)
    return json.loads(done.stdout)


def _launched(service: ServiceProcess, socket: Path) -> ServiceProcess:
    """One that is not asked over TCP whether it is ready."""
    service.launch()
    deadline = time.monotonic() + 60
    while _open(service, f"unix:{socket}") != {"same": True}:
        assert time.monotonic() < deadline, service.log.read_text()[-2000:]
        time.sleep(0.2)
    return service


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("transports")


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority.make(folder, "authority")


@pytest.fixture(scope="module")
def service(folder: Path, authority: Authority) -> Iterator[ServiceProcess]:
    certificate, key = authority.issue("server", ExtendedKeyUsageOID.SERVER_AUTH)
    socket = folder / "http.sock"
    env = {
        "AUTHSTORE_TLS_CERT": str(certificate),
        "AUTHSTORE_TLS_KEY": str(key),
        "AUTHSTORE_TLS_CLIENT_CA": str(authority.certificate),
        "AUTHSTORE_UNIX_SOCKET": str(socket),
    }
    launched = _launched(ServiceProcess(folder / "data", env), socket)
    yield launched
    launched.stop()


def test_tls_checks_both_sides(service: ServiceProcess, authority: Authority, tmp_path: Path) -> None:
    url = f"https://127.0.0.1:{service.port}"
    certificate, key = map(str, authority.issue("client", ExtendedKeyUsageOID.CLIENT_AUTH))
    trusted = str(authority.certificate)
    assert _open(service, url, ca=trusted, cert=certificate, key=key) == {"same": True}
    nobody = _open(service, url, ca=trusted)
    assert nobody["code"] == "unavailable"
    unknown = _open(service, url, cert=certificate, key=key)
    assert unknown["code"] == "unavailable"
    other = Authority.make(tmp_path, "other")
    foreign = _open(service, url, ca=str(other.certificate), cert=certificate, key=key)
    assert foreign["code"] == "unavailable"


def test_a_token_over_the_socket_is_checked_too(service: ServiceProcess, folder: Path) -> None:
    url = f"unix:{folder / 'http.sock'}"
    assert _open(service, url) == {"same": True}
    assert _open(service, url, token="no-such-token")["code"] == "refused"


def test_plain_http_to_a_tls_port_is_told_what_it_may_be(service: ServiceProcess) -> None:
    answer = _open(service, f"http://127.0.0.1:{service.port}")
    assert answer["code"] == "unavailable"
    assert answer["message"].endswith(" (is it https?)"), answer["message"]


def test_a_socket_that_is_not_there_is_named(service: ServiceProcess, folder: Path) -> None:
    answer = _open(service, f"unix:{folder / 'none.sock'}")
    assert answer["message"].endswith(f"ENOENT: the unix socket {folder / 'none.sock'}")
