"""Folders written and read by a release's own ``useMultiFileAuthState``."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parent.parent / "fixtures"


async def put_folder(release: str, folder: Path, state: dict[str, Any]) -> None:
    """Baileys (release 6 or 7) stores ``{"creds", "keys"}`` there."""
    await _node("put", release, folder, state)


async def get_folder(release: str, folder: Path, state: dict[str, Any]) -> Any:
    """What Baileys reads there: the creds, and the keys that ``state`` names."""
    return json.loads(await _node("get", release, folder, state))


async def _node(verb: str, release: str, folder: Path, state: dict[str, Any]) -> bytes:
    process = await asyncio.create_subprocess_exec(
        "node",
        "multi-file.mjs",
        verb,
        release,
        str(folder),
        cwd=FIXTURES,
        env={"PATH": os.environ["PATH"]},
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(json.dumps(state).encode())
    assert process.returncode == 0, err.decode()
    return out
