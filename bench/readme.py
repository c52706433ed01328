"""The section of the README that the command writes: what stands between two markers, and nothing else."""

from pathlib import Path
from typing import Final

README: Final = Path(__file__).parent.parent / "README.md"


def put(section: str, text: str, path: Path = README) -> bool:
    """Replaces a section's text. False when the README has no such section."""
    begin, end = f"<!-- {section}:begin -->", f"<!-- {section}:end -->"
    head, found, rest = path.read_text().partition(begin)
    _, closed, tail = rest.partition(end)
    if not found or not closed:
        return False
    path.write_text(f"{head}{begin}\n{text}\n{end}{tail}")
    return True
