"""Stores of other people's libraries, filled and read by those libraries; and servers that a test needs and may miss."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any, NoReturn

import pytest

BENCH = Path(__file__).parent.parent / "bench"


async def put_state(library: str, options: dict[str, Any], session: str, state: dict[str, Any]) -> None:
    """Stores a state (``{"creds", "keys"}``) through a function of ``bench/node/stores/libraries.mjs``."""
    await _node("put", library, options, session, state)


async def get_state(library: str, options: dict[str, Any], session: str, state: dict[str, Any]) -> Any:
    """What the library gives for the creds and the keys that ``state`` names."""
    return json.loads(await _node("get", library, options, session, state))


def missing(server: str) -> NoReturn:
    """Ends a test whose server does not answer: a failure where everything must be tested, a skip with a reason elsewhere."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"no {server} answers on this machine")
    pytest.skip(f"no {server} answers on this machine")


async def _node(verb: str, library: str, options: dict[str, Any], session: str, state: dict[str, Any]) -> bytes:
    process = await asyncio.create_subprocess_exec(
        "node",
        "node/peer-state.mjs",
        verb,
        library,
        json.dumps(options),
        session,
        cwd=BENCH,
        env={"PATH": os.environ["PATH"]},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(json.dumps(state).encode())
    assert process.returncode == 0, err.decode()
    return out
