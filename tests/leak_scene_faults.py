"""Failures made from outside a running service, each with marked secrets in flight."""

import asyncio
import gzip
import http.client
import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import asyncpg
from leak_scene_marks import BAD_TOKEN, Marked
from service_process import ServiceProcess

from service.embedded import attach

Body = dict[str, Any] | bytes | None


class Faults:
    """Makes every kind of failure once. ``error_bodies`` holds every answer of 400 and more, headers included."""

    def __init__(self, service: ServiceProcess, marked: Marked) -> None:
        self._service = service
        self._marked = marked
        self.error_bodies: list[bytes] = []

    def make_all(self) -> dict[str, list[int | None]]:
        """Statuses by kind of failure; None where no answer came."""
        kinds: list[Callable[[], list[int | None]]] = [
            self.rows_changed_behind_its_back,
            self.constraint,
            self.trigger,
            self.statement_timeout,
            self.bug,
            self.background,
            self.bad_json,
            self.bad_tokens,
            self.malformed_http,
            self.too_large,
            self.bad_encoding,
            self.gone_in_mid_body,
            self.key_reused,
            self.refused,
            self.bad_input,
            self.postgres_killed,
            self.database_away,
            self.master_key_unknown,
            self.data_key_broken,
        ]
        return {kind.__name__: kind() for kind in kinds}

    def metrics(self) -> bytes:
        return self._raw("GET", "/metrics")[1]

    # -- the database is not what it was ------------------------------------------------------------------------------

    def rows_changed_behind_its_back(self) -> list[int | None]:
        """A flipped bit, a row that is gone, a row of another session."""
        flipped, short, other = (self._made(fault) for fault in ("flipped", "short", "other"))
        self._sql(
            "UPDATE session_keys SET sealed = set_byte(sealed, 40, get_byte(sealed, 40) # 1) WHERE sid = "
            "(SELECT sid FROM sessions WHERE name = $1)",
            flipped,
        )
        self._sql(
            "DELETE FROM session_keys WHERE ktype = 'session' AND sid = (SELECT sid FROM sessions WHERE name = $1)",
            short,
        )
        self._sql(
            "UPDATE session_keys SET sealed = (SELECT max(sealed) FROM session_keys k JOIN sessions USING (sid) "
            "WHERE name = $2) WHERE sid = (SELECT sid FROM sessions WHERE name = $1)",
            other,
            flipped,
        )
        return [self._get(name, call) for name in (flipped, short, other) for call in ("creds", "state")]

    def constraint(self) -> list[int | None]:
        """The DETAIL of Postgres' error quotes the row, its session's name in it."""
        self._sql("ALTER TABLE sessions ADD CONSTRAINT no_second CHECK (name NOT LIKE '%-checked' OR version < 2)")
        self._sql("ALTER TABLE sessions ADD CONSTRAINT never CHECK (name NOT LIKE '%-never')")
        name = self._made("checked")
        statuses = [self._commit(name), self._commit(self._marked.session("never"))]
        many = [{"session": each, **self._marked.body()} for each in (name, self._marked.session("good"))]
        return [*statuses, self._ask("POST", "/v1/commits", {"commits": many})]

    def trigger(self) -> list[int | None]:
        """What Postgres' error says beside its text is made of the row."""
        self._sql(
            "CREATE FUNCTION quote_row() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'no' USING DETAIL = NEW::text, HINT = NEW.name; END $$"
        )
        self._sql(
            "CREATE TRIGGER quote_row BEFORE INSERT ON sessions FOR EACH ROW "
            "WHEN (NEW.name LIKE '%-raised') EXECUTE FUNCTION quote_row()"
        )
        return [self._commit(self._marked.session("raised"))]

    def statement_timeout(self) -> list[int | None]:
        name = self._made("slow")
        self._sql("ALTER DATABASE authstore SET statement_timeout = '400ms'")
        self._end_connections()
        try:
            with self._row_locked(name):
                return [self._commit(name)]
        finally:
            self._sql("ALTER DATABASE authstore RESET statement_timeout")
            self._end_connections()

    def postgres_killed(self) -> list[int | None]:
        """SIGKILL while commits are under way. What was in flight is answered, or said to be unknown."""
        statuses: list[int | None] = []
        until = time.monotonic() + 2

        def commit(name: str) -> None:
            body = self._marked.body()
            while time.monotonic() < until:
                statuses.append(self._commit(name, body))

        writers = [threading.Thread(target=commit, args=[self._made("killed")]) for _ in range(4)]
        for writer in writers:
            writer.start()
        time.sleep(0.3)
        self._signal_postgres(signal.SIGKILL)
        for writer in writers:
            writer.join()
        self._service.wait_ready()
        return statuses

    def database_away(self) -> list[int | None]:
        """Its postmaster answers nobody any more."""
        name = self._made("away")
        self._signal_postgres(signal.SIGSTOP, after_ending_connections=True)
        try:
            return [self._commit(name), self._get(name, "state")]
        finally:
            self._signal_postgres(signal.SIGCONT)
            self._service.wait_ready()

    def master_key_unknown(self) -> list[int | None]:
        name = self._made("foreign")
        self._sql(
            "UPDATE sessions SET master_key_id = '0123456789abcdef', wrapped_key = set_byte(wrapped_key, 1, 1) "
            "WHERE name = $1",
            name,
        )
        statuses = [self._get(name, "state"), self._ask("GET", "/health/ready")]
        self._sql("DELETE FROM sessions WHERE name = $1", name)
        return statuses

    def data_key_broken(self) -> list[int | None]:
        name = self._made("unwrapped")
        self._sql("UPDATE sessions SET wrapped_key = set_byte(wrapped_key, 20, 1) WHERE name = $1", name)
        return [self._get(name, "state")]

    # -- faults within, asked for by name (leak_scene_service) --------------------------------------------------------

    def bug(self) -> list[int | None]:
        many = [{"session": self._marked.session("bug"), **self._marked.body()}]
        return [self._commit(self._marked.session("bug")), self._ask("POST", "/v1/commits", {"commits": many})]

    def background(self) -> list[int | None]:
        """Outside of requests: a task, a callback, a thread, a finalizer, housekeeping. The request itself succeeds."""
        faults = ("task", "callback", "thread", "finalizer", "house")
        statuses = [self._commit(self._marked.session(fault)) for fault in faults]
        time.sleep(1.5)  # housekeeping goes by the second
        return statuses

    # -- what callers send --------------------------------------------------------------------------------------------

    def bad_json(self) -> list[int | None]:
        good, word = json.dumps(self._marked.body()).encode(), self._marked.key_id()
        bodies: list[Body] = [
            good[:-2],
            good + good,
            good.replace(b'"keys"', b'"' + word.encode() + b'"'),
            b"\xff" + good,
            b'{"keys":{"session":{"' + word.encode() + b'":' + b"[" * 100_000,
            {"keys": {"session": word}},
            {"keys": word},
            {"creds": word},
            {"creds": self._marked.creds(), "reset": word},
            {"creds": self._marked.creds(nextPreKeyId=word)},
            {"creds": self._marked.creds(signedIdentityKey={"public": self._marked.value()})},
            {"creds": self._marked.creds(signedPreKey={"keyId": {word: 1}})},
        ]
        return [self._commit(self._marked.session("json"), body) for body in bodies]

    def bad_tokens(self) -> list[int | None]:
        bad, good = self._marked.token(BAD_TOKEN), self._marked.token()
        headers = [
            *(f"Bearer {token}" for token in (bad, f"bas_{bad[:16]}_{bad}", good[:-1], good * 40, f"{good}\xe9")),
            good,
            f"Basic {good}",
        ]
        echoed = b"GET /v1/sessions HTTP/1.1\r\nHost: x\r\nAuthstore-Echo: " + bad.encode() + b"_\r\n\r\n"
        asked = [self._ask("GET", "/v1/sessions", authorization=header) for header in headers]
        return [*asked, self._say(echoed)]

    def malformed_http(self) -> list[int | None]:
        """Not HTTP: answered before there is a request, by what the parser stumbled over."""
        token, path = self._marked.token().encode(), quote(self._marked.key_id()).encode()
        heads = [
            b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token + b"\x01\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nAuthor ization: Bearer " + token + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer " + token * 400 + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: " + token + b"\r\n\r\n",
            b"GET / HTTP/1.1\r\nHost: x\r\nExpect: " + token + b"\r\nContent-Length: 2\r\n\r\n{}",
            b"GET /v1/sessions/" + path + b"%zz\x80 HTTP/1.1\r\nHost: x\r\n\r\n",
            b"GET http://[" + path + b" HTTP/1.1\r\nHost: x\r\n\r\n",
            path + b"\r\n\r\n",
            b"POST /v1/commits HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nAuthorization: Bearer "
            + token + b"\r\n\r\nZZ" + path + b"\r\n",
        ]  # fmt: skip
        return [self._say(head) for head in heads]

    def too_large(self) -> list[int | None]:
        """Sent whole, and zipped to almost nothing."""
        large = json.dumps({"creds": self._marked.creds(padding="x" * (1 << 20))}).encode()
        zipped = {"Content-Encoding": "gzip"}
        name = self._marked.session("large")
        return [self._commit(name, large), self._commit(name, gzip.compress(large), zipped)]

    def bad_encoding(self) -> list[int | None]:
        body = json.dumps(self._marked.body()).encode()
        whole, name = gzip.compress(body), self._marked.session("zip")
        zipped = {"Content-Encoding": "gzip"}
        return [
            self._commit(name, body, zipped),
            self._commit(name, whole[:-9], zipped),
            self._commit(name, whole[:40] + body, zipped),
            self._commit(name, body, {"Content-Encoding": self._marked.token()}),
            self._commit(name, body, {"Content-Type": f"text/{self._marked.token()}"}),
        ]

    def gone_in_mid_body(self) -> list[int | None]:
        body = json.dumps(self._marked.body()).encode()
        head = f"POST /v1/commits HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {self._marked.token()}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body) + 9}\r\n\r\n"
        with socket.create_connection(("127.0.0.1", self._service.port)) as connection:
            connection.sendall(head.encode() + body)
            time.sleep(0.3)
        time.sleep(0.3)
        return []

    def key_reused(self) -> list[int | None]:
        name, key = self._marked.session("replay"), {"Idempotency-Key": "6f1c1a6e-5b0d-4e7e-9d3c-0f8a6a1f2b3c"}
        return [self._commit(name, None, key), self._commit(name, None, key)]

    def refused(self) -> list[int | None]:
        """Refusals that protect an identity, and the ways of a lease."""
        name, pre_key = self._made("refused"), {"keys": {"pre-key": {"7": self._marked.value()}}}
        self._commit(name, pre_key)
        lease = {"holder": "worker-1", "ttl_s": 60}
        statuses = [
            self._commit(name, {"creds": self._marked.creds(2)}),
            self._commit(name, {"creds": self._marked.creds(nextPreKeyId=1)}),
            self._commit(name, {"keys": {"pre-key": {"7": self._marked.value()}}}),
            self._commit(name, None, {"If-Match": '"77"'}),
        ]
        self._ask("POST", self._path(name, "lease"), lease)
        statuses += [
            self._commit(name),
            self._commit(name, None, {"Lease-Epoch": "9"}),
            self._ask("POST", self._path(name, "lease"), lease | {"holder": "worker-2"}),
        ]
        self._ask("DELETE", self._path(name))
        return [*statuses, self._commit(name), self._get(name, "creds"), self._get(self._marked.session("no"), "creds")]

    def bad_input(self) -> list[int | None]:
        name, word = self._made("input"), self._marked.key_id()
        value = self._marked.value()
        return [
            self._commit(f"{self._marked.session('bad')} /"),
            self._commit(self._marked.session("long") * 4),
            self._commit(name, {"keys": {"session": {f"{word}\0": value}}}),
            self._commit(name, {"keys": {"session": {word * 20: value}}}),
            self._commit(name, {"keys": {word * 3: {"1": value}}}),
            self._commit(name, {"keys": {f"{word}\0": {"1": value}}}),
            self._commit(name, None, {"Idempotency-Key": word}),
            self._commit(name, None, {"If-Match": word}),
            self._commit(name, None, {"Lease-Epoch": word}),
            self._ask("GET", self._path(name, f"keys/session?cursor={quote(word)}")),
            self._ask("GET", self._path(name, f"keys/session?limit={quote(word)}")),
            self._ask("GET", f"/v1/sessions?prefix={quote(word + '/')}"),
            self._ask("GET", f"/v1/{quote(word)}"),
            self._ask("PATCH", self._path(name)),
            self._ask("POST", self._path(name, "lease"), {"holder": f"{word}\n", "ttl_s": 60}),
            self._ask("POST", self._path(name, "keys/get"), {word * 3: [word]}),
            self._ask("PUT", self._path(name, "state"), {"creds": None, "keys": {"session": {word: None}}}),
        ]

    # -- how it is asked ----------------------------------------------------------------------------------------------

    def _made(self, fault: str) -> str:
        """A session that was committed."""
        name = self._marked.session(fault)
        assert self._commit(name) == 200
        return name

    def _commit(self, name: str, body: Body = None, headers: dict[str, str] | None = None) -> int | None:
        sent = self._marked.body() if body is None else body
        return self._ask("POST", self._path(name, "commit"), sent, headers=headers)

    def _get(self, name: str, call: str) -> int | None:
        return self._ask("GET", self._path(name, call))

    @staticmethod
    def _path(name: str, call: str = "") -> str:
        return f"/v1/sessions/{quote(name, safe='')}" + (f"/{call}" if call else "")

    def _ask(self, *request: Any, **more: Any) -> int | None:
        return self._raw(*request, **more)[0]

    def _raw(
        self,
        method: str,
        path: str,
        body: Body = None,
        *,
        headers: dict[str, str] | None = None,
        authorization: str | None = None,
    ) -> tuple[int, bytes]:
        sent = {"Content-Type": "application/json", "Authorization": authorization or f"Bearer {self._service.token}"}
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection = http.client.HTTPConnection("127.0.0.1", self._service.port, timeout=60)
        try:
            connection.request(method, path, data, sent | (headers or {}))
            answer = connection.getresponse()
            text = answer.read()
        finally:
            connection.close()
        if answer.status >= 400:
            self.error_bodies.append(str(answer.headers).encode() + text)
        return answer.status, text

    def _say(self, head: bytes) -> int | None:
        with socket.create_connection(("127.0.0.1", self._service.port), timeout=5) as connection:
            connection.sendall(head)
            answer = connection.recv(65536)
        self.error_bodies.append(answer)
        return int(answer.split()[1]) if answer else None

    # -- the database behind its back ---------------------------------------------------------------------------------

    def _sql(self, statement: str, *arguments: Any) -> None:
        async def run() -> None:
            connection = await asyncpg.connect(attach(self._service.data_dir))
            try:
                await connection.execute(statement, *arguments)
            finally:
                await connection.close()

        asyncio.run(run())

    def _end_connections(self) -> None:
        self._sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'authstore'")

    @contextmanager
    def _row_locked(self, name: str) -> Iterator[None]:
        with asyncio.Runner() as runner:
            connection = runner.run(asyncpg.connect(attach(self._service.data_dir)))
            runner.run(connection.execute("BEGIN; SET LOCAL statement_timeout = 0"))
            runner.run(connection.execute("SELECT FROM sessions WHERE name = $1 FOR UPDATE", name))
            yield
            runner.run(connection.execute("ROLLBACK"))
            runner.run(connection.close())

    def _signal_postgres(self, number: signal.Signals, *, after_ending_connections: bool = False) -> None:
        postmaster = int((self._service.data_dir / "pg" / "postmaster.pid").read_text().split()[0])
        if after_ending_connections:
            # The postmaster stops first, so that no new one begins between.
            async def end() -> None:
                connection = await asyncpg.connect(attach(self._service.data_dir))
                os.kill(postmaster, number)
                await connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'authstore'"
                )
                connection.terminate()

            asyncio.run(end())
        else:
            os.kill(postmaster, number)
