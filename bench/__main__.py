"""`python -m bench`: the comparison. `--scale`: cost as work grows. `--floors`: what stands between us and the goals."""

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from bench import durability, floors, machine, plots, readme, report, scale
from bench.figures import BY_RATE, WORKLOADS
from bench.side_by_side import SHARES, TINY, Race
from bench.stores import DIRECT, Field, line_up
from bench.worker import Worker, WorkFailed

RESULTS: Final = Path(__file__).parent / "results"


def main(words: Sequence[str] | None = None) -> int:
    """Exit 0, or 3 when the run is void and nothing was written."""
    options = _parser().parse_args(words)
    with room(options.folder) as folder:
        run = floors.main if options.floors else scale.main if options.scale else compare
        return run(folder, options)


def compare(folder: Path, options: argparse.Namespace) -> int:
    """The interleaved run, from starting the servers to the README."""
    say = _teller()
    described = machine.describe(folder)
    if described["file_system"] in {"tmpfs", "ramfs", "overlay"}:
        say(f"note: {folder} is on {described['file_system']}; an fsync there says little. Choose --folder")
    shares = TINY if options.tiny else SHARES
    only = [*options.only, DIRECT] if options.only else []
    with line_up(folder, only) as start:
        if not options.tiny:
            start.season(say)
        with Worker(folder / "worker.log") as worker:
            outcome = Race(worker, start, say, shares=shares, rounds=options.rounds, repeats=options.repeats).run()
        proofs = _proofs(start, folder, say)
        results = report.assemble(described, start, outcome, proofs, options.rounds)
    return _write(results, options, say)


def _proofs(start: Field, folder: Path, say: Any) -> dict[str, durability.Proof]:
    proofs = {}
    for contestant in start.contestants:
        say(f"fsyncs of {contestant.name}")
        try:
            proof = durability.prove(contestant, folder / "worker.log")
        except WorkFailed as failed:
            say(f"not proven: {failed}")
            continue
        if proof is not None:
            proofs[contestant.name] = proof
    return proofs


def _write(results: dict[str, Any], options: argparse.Namespace, say: Any) -> int:
    out: Path = options.results
    out.mkdir(exist_ok=True, parents=True)
    void = results["void"]
    name = "void.json" if void else "latest.json"
    (out / name).write_text(json.dumps(results, indent=1) + "\n")
    if void:
        drifts = ", ".join(f"{workload} by {results['drift'][workload] - 1:.0%}" for workload in void)
        say(f"void: the same store measured twice differed: {drifts}. Nothing written but {out / name}; run it again")
        return 3
    (out / "ratios.svg").write_text(plots.ratios(results, WORKLOADS, BY_RATE))
    section = report.markdown(results, [("Times as multiples of direct", "bench/results/ratios.svg")])
    (out / "table.md").write_text(section + "\n")
    if options.readme and not readme.put("bench", section):
        say("the README has no section for this: see table.md")
    say(f"written to {out}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (5)")
    parser.add_argument("--repeats", type=int, default=2, help="times a void workload is run again (2)")
    parser.add_argument("--only", nargs="*", default=[], help="stores by name; direct always takes part")
    parser.add_argument("--tiny", action="store_true", help="a few operations: does everything run?")
    parser.add_argument(
        "--folder", type=Path, default=Path("/var/tmp"), help="where the servers' data lies while it runs"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where results go")
    parser.add_argument("--no-readme", dest="readme", action="store_false", help="leave the README as it is")
    scale.add_options(parser)
    floors.add_options(parser)
    return parser


@contextmanager
def room(parent: Path) -> Iterator[Path]:
    """A folder that the database's account may pass through; gone at the end."""
    folder = Path(tempfile.mkdtemp(prefix="authstore-bench-", dir=parent))
    folder.chmod(0o711)
    try:
        yield folder
    finally:
        if not os.environ.get("AUTHSTORE_BENCH_KEEP"):
            shutil.rmtree(folder, ignore_errors=True)


def _teller() -> Any:
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.0f} s] {text}", file=sys.stderr, flush=True)

    return say


if __name__ == "__main__":
    sys.exit(main())
