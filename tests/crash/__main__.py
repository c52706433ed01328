"""``python -m tests.crash``: the release run."""

import argparse
import asyncio
import secrets
import sys
import tempfile
from pathlib import Path

from tests.service_process import ServiceProcess

from .checker import check
from .run import Plan, run


def main() -> int:
    """Exit 1 with violations."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--acks", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    given = parser.parse_args()
    plan = Plan(given.seed, given.kills, given.acks)
    print(f"seed {plan.seed}", flush=True)
    with tempfile.TemporaryDirectory() as folder, ServiceProcess(Path(folder) / "data") as service:
        done = asyncio.run(run(service, plan))
    print(*done.lines(), sep="\n")
    violations = check(done.history)
    print(*violations[:50], sep="\n")
    print(f"{len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
