"""Logs, reports and metrics: what they show, and above all what they never show."""

import asyncio
import base64
import io
import json
import logging
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path

import pytest
from captured import CapturedTransport
from needles import Needles, forms
from observe_scene import DSN, FAILURES

import service
from service import observe
from service.observe import fields

SCENE = Path(__file__).with_name("observe_scene.py")


@pytest.fixture(autouse=True)
def _as_before():
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    observe.close_sentry()
    observe.set_request_id(None)
    logging.captureWarnings(False)
    root.handlers[:], root.level = handlers, level


@pytest.fixture
def lines():
    stream = io.StringIO()
    observe.setup_logging("json", "debug", stream=stream)
    yield lambda: [json.loads(line) for line in stream.getvalue().splitlines()]
    observe.setup_logging("json", "info")


@pytest.fixture
def reports():
    transport = CapturedTransport()
    observe.setup_sentry(DSN, "test", "1.2.3", transport=transport)
    return transport


def raised(error: BaseException) -> BaseException:
    try:
        raise error  # noqa: TRY301
    except BaseException as caught:
        return caught


def play(seed: str, how: str) -> tuple[bytes, bytes]:
    """The scene's (envelopes, log)."""
    done = subprocess.run([sys.executable, SCENE, seed, how], capture_output=True, timeout=120, check=False)
    assert done.returncode == 1, "the scene ends with an uncaught exception"
    return done.stdout, done.stderr


def test_a_warning_shows_its_class_and_place(lines):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("hidden", ResourceWarning, stacklevel=1)
    (said,) = lines()
    assert (said["level"], said["logger"], said["error"]) == ("warning", "py.warnings", "ResourceWarning")
    (frame,) = said["frames"]
    assert frame.endswith(" test_a_warning_shows_its_class_and_place")
    assert "hidden" not in str(said)


def test_no_failure_lets_a_secret_into_logs_or_reports():
    seed = f"scene {time.time_ns()}"
    envelopes, log = play(seed, "scrubbed")
    needles = all_needles(seed)
    assert needles.find_in(log) == []
    assert needles.find_in(envelopes) == []
    said = [json.loads(line) for line in log.splitlines()]
    assert sum(line["event"] == "request failed" for line in said) == len(FAILURES)
    assert {"uncaught exception", "uncaught exception in a thread", "exception in a finalizer"} <= {
        line["event"] for line in said
    }
    assert all(set(line["dropped"]) == {"?", "key", "session"} for line in said if line["event"] == "request failed")
    assert envelopes.count(b'"type":"event"') >= len(FAILURES) + 4


def test_the_control_finds_every_secret_when_nothing_is_scrubbed():
    seed = f"control {time.time_ns()}"
    envelopes, log = play(seed, "plain")
    needles = all_needles(seed)
    everything = set(range(2 * len(FAILURES))) | {900, 901}
    assert {hit.needle for hit in needles.find_in(log)} >= everything | {902, 903}
    assert {hit.needle for hit in needles.find_in(envelopes)} >= everything
    assert b'"vars"' in envelopes


def all_needles(seed: str) -> Needles:
    needles = Needles(seed)
    for number in [*range(0, 2 * len(FAILURES), 2), 900, 902]:
        needles.key(number)
        needles.word(number + 1)
    return needles


@pytest.mark.parametrize("shift", range(3))
def test_the_search_finds_every_form_and_cut_needles(shift):
    needles = Needles("self")
    key, word = needles.key(0), needles.word(1)
    for number, raw in enumerate((key, word.encode())):
        for form, pattern in forms(raw):
            found = needles.find_in(b"before " + pattern + b" after")
            assert any(hit.needle == number for hit in found), form
    embedded = base64.b64encode(b"x" * shift + key + b"tail")
    assert any(hit.needle == 0 for hit in needles.find_in(embedded))
    assert any(hit.needle is None for hit in needles.find_in(repr(key[:12]).encode()))
    assert needles.find_in(repr(Needles("another").key(0)).encode()) == []


def test_an_error_shows_class_causes_sqlstate_and_place(lines):
    error = RuntimeError("text")
    error.sqlstate = "40001"
    error.__cause__ = raised(KeyError("text"))
    observe.get_logger("service.store").error("commit failed", exc=raised(error), statement="commit", duration_ms=1.5)
    (line,) = lines()
    assert line["error"] == "RuntimeError"
    assert line["causes"][0].startswith("KeyError test_observe:")
    assert line["frames"][-1].endswith(" raised")
    assert (line["sqlstate"], line["statement"], line["duration_ms"]) == ("40001", "commit", 1.5)
    assert "text" not in json.dumps({**line, "event": ""})


def test_a_cycle_of_causes_and_a_long_trace_end(lines):
    first, second = ValueError(), KeyError()
    first.__cause__, second.__cause__ = second, first

    def deep(left: int) -> None:
        if left:
            deep(left - 1)
        raise first

    with pytest.raises(ValueError, match=r"^$") as caught:
        deep(200)
    observe.get_logger("service").error("failed", exc=caught.value)
    (line,) = lines()
    assert len(line["frames"]) == 20
    assert len(line["causes"]) == 1


def test_a_line_carries_the_task_s_request(lines):
    async def request() -> str:
        observe.set_request_id(request_id := observe.new_request_id())
        await asyncio.sleep(0)
        observe.get_logger("service.http").info("answered", route="/v1/sessions/{session}/keys/get", status=200)
        return request_id

    async def both() -> list[str]:
        return await asyncio.gather(request(), request())

    ids = asyncio.run(both())
    assert len(set(ids)) == 2
    assert [line["request_id"] for line in lines()] == ids


def test_levels(lines):
    observe.setup_logging("json", "warning", stream=(stream := io.StringIO()))
    log = observe.get_logger("service.x")
    log.debug("no")
    log.info("no")
    log.warning("yes")
    logging.getLogger("service.y").info("no")
    logging.getLogger("service.y").error("yes")
    logging.getLogger("aiohttp.server").info("no")
    logging.getLogger("aiohttp.server").warning("heard, not quoted")
    said = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in said] == ["yes", "yes", "library message"]
    assert [line["level"] for line in said] == ["warning", "error", "warning"]


def test_console_says_the_same(lines):
    observe.setup_logging("console", "info", stream=(stream := io.StringIO()))
    observe.get_logger("service.x").error("it failed", exc=raised(ValueError("secret")), session="secret", port=8480)
    assert "it failed" in stream.getvalue()
    assert "port=8480" in stream.getvalue()
    assert "ValueError" in stream.getvalue()
    assert "secret" not in stream.getvalue()


def test_a_log_that_cannot_be_written_stops_nothing():
    stream = io.StringIO()
    observe.setup_logging("json", stream=stream)
    stream.close()
    observe.get_logger("service").error("nobody hears")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("route", "/v1/sessions/{session}/keys/{type}"),
        ("route", "unmatched"),
        ("request_id", "0" * 32),
        ("sqlstate", "23505"),
        ("address", "[::1]:8480"),
        ("address", "unix:/run/authstore/http.sock"),
        ("server_version", "PostgreSQL 18.6 (Debian 18.6-1)"),
        ("database", "embedded"),
        ("database", "postgresql://shop@db-1.example:5432,[::1]:5433/keys?sslmode=verify-full"),
        ("status", 200),
    ],
)
def test_fields_of_the_right_form_are_kept(name, value):
    assert fields.allowed({name: value}) == ({name: value}, [])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("route", "/v1/sessions/Bob@example/creds"),
        ("request_id", "chosen-by-the-caller"),
        ("sqlstate", "23505x"),
        ("statement", "select * from keys"),
        ("database", "postgresql://shop:secret@db.example/keys"),
        ("database", "postgresql://:secret@db.example/keys"),
        ("database", "postgresql://db.example/keys?password=secret"),
        ("database", "postgresql://db.example/keys?sslmode=require&password=secret"),
        ("database", "postgresql://shop@db.example/keys?password=a@b"),
        ("status", "200"),
        ("duration_ms", float("nan")),
        ("path", "two\nlines"),
        ("count", b"1"),
        ("session", "bob"),
        ("token", "t"),
        ("key", b"k"),
        ("error", "text"),
        ("frames", ["text"]),
    ],
)
def test_any_other_field_is_dropped_by_name(name, value):
    assert fields.allowed({name: value}) == ({}, [name])


def test_a_report_says_where_and_what_kind(reports):
    error = raised(ValueError("text"))
    observe.set_request_id(request_id := observe.new_request_id())
    observe.report(error, route="/v1/sessions/{session}/commit", method="POST", statement="commit")
    (event,) = reports.events
    assert set(event) == {"event_id", "timestamp", "platform", "level", "release", "environment", "exception", "tags"}
    (shown,) = event["exception"]["values"]
    assert (shown["type"], set(shown)) == ("ValueError", {"type", "module", "stacktrace"})
    assert shown["stacktrace"]["frames"][-1]["function"] == "raised"
    assert set(shown["stacktrace"]["frames"][-1]) == {"module", "function", "lineno", "filename", "in_app"}
    assert (event["environment"], event["release"], event["level"]) == ("test", "1.2.3", "error")
    assert event["tags"] == {
        "request_id": request_id,
        "route": "/v1/sessions/{session}/commit",
        "method": "POST",
        "statement": "commit",
    }


def test_one_failure_is_one_report(reports):
    error = raised(ValueError())
    for _ in range(3):
        observe.report(error)
    observe.loop_exception_handler(None, {"message": "x", "exception": error})
    assert len(reports.sent) == 1
    observe.report(raised(ValueError()))
    assert len(reports.sent) == 2


def test_only_exceptions_leave_even_when_the_sdk_is_called_elsewhere(reports):
    import sentry_sdk

    sentry_sdk.capture_message("secret")
    sentry_sdk.set_user({"id": "secret"})
    sentry_sdk.set_tag("session", "secret")
    sentry_sdk.set_context("body", {"secret": "secret"})
    sentry_sdk.set_extra("secret", "secret")
    sentry_sdk.add_breadcrumb(message="secret")
    with sentry_sdk.start_transaction(name="secret"):
        sentry_sdk.capture_exception(raised(ValueError("secret")))
    sentry_sdk.get_isolation_scope().clear()
    assert len(reports.events) == 1
    assert b"secret" not in b"".join(reports.sent)


def test_what_libraries_retry_by_themselves_is_not_reported(reports, lines):
    error = raised(ConnectionRefusedError())
    logging.getLogger("asyncpg.pool").warning("Failed to restore the pool connection floor", exc_info=error)
    logging.getLogger("asyncpg.pool").error("Failed to restore the pool connection floor", exc_info=error)
    logging.getLogger("urllib3.connectionpool").error("retrying", exc_info=error)
    assert reports.sent == []
    assert [line["error"] for line in lines()] == ["ConnectionRefusedError"] * 3
    logging.getLogger("aiohttp.server").error("Error handling request", exc_info=error)
    assert len(reports.sent) == 1


def test_without_a_dsn_nothing_is_sent_and_nothing_fails(monkeypatch):
    import sentry_sdk

    monkeypatch.setenv("SENTRY_DSN", DSN)
    observe.setup_sentry(None)
    assert not sentry_sdk.get_client().is_active()
    observe.report(raised(ValueError()))


def test_closing_sends_no_more(reports):
    observe.close_sentry()
    observe.report(raised(ValueError()))
    assert reports.sent == []


def test_request_ids_are_random_hexadecimal():
    ids = {observe.new_request_id() for _ in range(1000)}
    assert len(ids) == 1000
    assert all(fields.fits("request_id", each) for each in ids)


def test_metrics_count_what_they_are_told():
    metrics = observe.Metrics("1.2.3")
    metrics.request("POST", "/v1/sessions/{session}/commit", 200, 0.004)
    metrics.request("POST", "/v1/sessions/{session}/commit", 200, 0.004)
    metrics.applied([812])
    metrics.applied([2, 0, 2])
    metrics.refused("fenced")
    metrics.pool(busy=3, idle=7, waiting=1)
    metrics.watch_pool("waiting", lambda: 9)
    metrics.lane_batch("commit", 12)
    metrics.lease("taken_over")
    metrics.corrupt()
    metrics.postgres_restart()
    metrics.mirrors(3, 61.5)
    text, kind = metrics.render()
    shown = text.decode().splitlines()
    assert kind.startswith("text/plain")
    for line in (
        'authstore_requests_total{method="POST",route="/v1/sessions/{session}/commit",status="200"} 2.0',
        'authstore_request_duration_seconds_bucket{le="0.005",route="/v1/sessions/{session}/commit"} 2.0',
        'authstore_commits_total{outcome="applied"} 4.0',
        'authstore_commits_total{outcome="fenced"} 1.0',
        'authstore_commit_rows_bucket{le="0.0"} 1.0',
        'authstore_commit_rows_bucket{le="1.0"} 1.0',
        'authstore_commit_rows_bucket{le="2.0"} 3.0',
        'authstore_commit_rows_bucket{le="1024.0"} 4.0',
        'authstore_commit_rows_bucket{le="+Inf"} 4.0',
        "authstore_commit_rows_sum 816.0",
        "authstore_commit_rows_count 4.0",
        'authstore_pool_connections{state="busy"} 3.0',
        'authstore_pool_connections{state="waiting"} 9.0',
        'authstore_lane_batch_size_sum{lane="commit"} 12.0',
        'authstore_lease_events_total{event="taken_over"} 1.0',
        "authstore_corrupt_total 1.0",
        "authstore_postgres_restarts_total 1.0",
        "authstore_mirror_waiting_sessions 3.0",
        "authstore_mirror_oldest_seconds 61.5",
    ):
        assert line in shown
    assert any(line.startswith("authstore_build_info{") and 'version="1.2.3"' in line for line in shown)
    assert any(line.startswith("process_resident_memory_bytes") for line in shown)


def test_no_label_comes_from_a_request():
    metrics, needles = observe.Metrics("1"), Needles("labels")
    key, word = needles.key(1), needles.word(2)
    metrics.request(word, f"/v1/sessions/{word}@s/creds", 200, 0.1)
    metrics.request("BREW", "/v1/x", 999, 0.1)
    metrics.refused(key.hex())
    metrics.lane_batch(word.upper(), 1)
    text = metrics.render()[0]
    assert needles.find_in(text) == []
    assert b'authstore_requests_total{method="other",route="/v1/x",status="other"} 1.0' in text


def test_two_registries_do_not_meet():
    first, second = observe.Metrics("1"), observe.Metrics("1")
    first.corrupt()
    assert b"authstore_corrupt_total 0.0" in second.render()[0]


_EVENT = re.compile(r"\b_?(?:log|logger)\.(?:debug|info|warn|warning|error|exception|critical)\(\s*")
_CONSTANT = re.compile(r'"[^"\\{}%]*"\s*[,)]')


def test_every_event_of_the_service_is_a_constant_text():
    calls = 0
    for path in Path(service.__file__).parent.rglob("*.py"):
        source = path.read_text("utf-8")
        for call in _EVENT.finditer(source):
            if path.parent.name == "observe":
                continue
            calls += 1
            line = source.count("\n", 0, call.start()) + 1
            assert _CONSTANT.match(source, call.end()), f"{path.name}:{line} logs a text made at run time"
    assert calls > 10
