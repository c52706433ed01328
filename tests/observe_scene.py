"""Many failures with marked secrets in flight, in a process of its own: ``observe_scene.py SEED scrubbed|plain``.

Logs go to standard error as in service; the envelopes Sentry would get go to standard output. ``plain`` is the control:
the standard library's logging and the Sentry SDK as they come.
"""

import asyncio
import gc
import json
import logging
import struct
import sys
import threading
import warnings
from collections.abc import Callable

import pydantic
from captured import CapturedTransport
from needles import Needles

from service import observe

DSN = "https://public@sentry.example/1"
FOREIGN = ["asyncio", "aiohttp.server", "asyncpg.pool", "uvloop", "aiohttp.access"]


class DriverError(Exception):
    """Has what the database driver's errors have: SQLSTATE, and a detail that quotes the row."""

    def __init__(self, message: str, detail: str) -> None:
        super().__init__(message)
        self.sqlstate, self.detail, self.args = "23514", detail, (message, detail)


class Model(pydantic.BaseModel):
    count: int


def in_arguments(key: bytes, word: str) -> None:
    raise ValueError(f"bad key {key!r} of {word}", key, word)


def in_locals(key: bytes, word: str) -> None:
    copied, listed, held = bytes(key), list(key), {"creds": {"noise": key.hex(), "of": word}}
    raise RuntimeError(len(copied) + len(listed) + len(held))


def in_a_cause(key: bytes, word: str) -> None:
    try:
        in_arguments(key, word)
    except ValueError as error:
        raise RuntimeError("cause") from error


def in_a_context(key: bytes, word: str) -> None:
    try:
        in_arguments(key, word)
    except ValueError:
        raise KeyError(word)  # noqa: B904


def in_a_group(key: bytes, word: str) -> None:
    raise ExceptionGroup(f"group of {word}", [ValueError(key), OSError(2, word, word)])


def in_a_note(key: bytes, word: str) -> None:
    error = RuntimeError("noted")
    error.add_note(f"{key.hex()} {word}")
    raise error


def undecodable(key: bytes, word: str) -> None:
    (key + word.encode()).decode("ascii")


def not_json(key: bytes, word: str) -> None:
    json.loads(f'{{"{word}": {key.hex()}')


def not_the_model(key: bytes, word: str) -> None:
    Model.model_validate({"count": f"{word}{key.hex()}"})


def not_packed(key: bytes, word: str) -> None:
    struct.unpack(f"<{len(word) + 1}s", word.encode() + key)


def from_the_driver(key: bytes, word: str) -> None:
    raise DriverError(f"violates check {word}", f"Failing row contains ({word}, \\x{key.hex()}).")


def a_class_attribute(key: bytes, word: str) -> None:
    error = RuntimeError("held")
    error.key, error.session = key, word
    raise error


FAILURES = [
    in_arguments,
    in_locals,
    in_a_cause,
    in_a_context,
    in_a_group,
    in_a_note,
    undecodable,
    not_json,
    not_the_model,
    not_packed,
    from_the_driver,
    a_class_attribute,
]


def fail(failure: Callable[[bytes, str], None], key: bytes, word: str, log: observe.Log | logging.Logger) -> None:
    try:
        failure(key, word)
    except Exception as error:
        if isinstance(log, logging.Logger):
            log.exception("request failed %r %s", key, word)
        else:
            log.exception(
                "request failed", exc=error, route="/v1/sessions/{session}", session=word, key=key, **{word: 1}
            )
            log.warning("with odd fields", route=f"/v1/sessions/{word}/Creds", statement=key, request_id=word)
        for name in FOREIGN:
            logging.getLogger(name).exception("library says %r %s", key, word)
            logging.getLogger(name).exception(f"library says {key!r} {word}", extra={"key": key})  # noqa: G004
        observe.report(error, route=f"/v1/sessions/{word}/Creds", statement=word + "/", request_id=word)


def outside_requests(needles: Needles) -> None:
    """What no handler sees: the loop's own handler, a thread, a finalizer, a warning, a record that cannot be made."""
    key, word = needles.key(900), needles.word(901)

    async def lost() -> None:
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(observe.loop_exception_handler)
        loop.call_soon(in_arguments, key, word)
        task = loop.create_task(asyncio.to_thread(in_arguments, key, word), name=word)
        await asyncio.wait([task])
        loop.call_exception_handler({"message": word, "exception": ValueError(key), "handle": key})

    class Finalized:
        def __del__(self) -> None:
            in_arguments(key, word)

    asyncio.run(lost())
    gc.collect()
    thread = threading.Thread(target=in_arguments, args=(key, word), name=word)
    thread.start()
    thread.join()
    Finalized()
    warnings.warn(f"{key!r} {word}", stacklevel=1)
    logging.getLogger("asyncio").error("%d %d", key, word)
    logging.getLogger("service.http").error("own template %s", word)


def main(seed: str, scrub: bool) -> None:
    needles = Needles(seed)
    transport = CapturedTransport()
    if scrub:
        observe.setup_logging("json", "debug")
        observe.install_hooks()
        observe.set_request_id(observe.new_request_id())
    else:
        logging.basicConfig(level=logging.DEBUG)
    observe.setup_sentry(DSN, "test", transport=transport, scrub=scrub)
    log = observe.get_logger("service.http.handlers") if scrub else logging.getLogger("service.http.handlers")
    for number, failure in enumerate(FAILURES):
        fail(failure, needles.key(2 * number), needles.word(2 * number + 1), log)
    outside_requests(needles)
    observe.close_sentry()
    sys.stdout.buffer.write(b"\n".join(transport.sent))
    sys.stdout.flush()
    in_arguments(needles.key(902), needles.word(903))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2] == "scrubbed")
