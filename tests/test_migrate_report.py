"""Files of a run: secrets that only their owner reads, whatever stood there before."""

from pathlib import Path

import pytest

from service.migrate.plan import Quarantined, Why
from service.migrate.report import Folder, Unwritten

ROW = Quarantined(Why.torn, "pre-key", "1", "creds.json", b"secret")


def test_a_file_that_everybody_may_read_is_closed_to_them(tmp_path: Path) -> None:
    there = tmp_path / "quarantine.ndjson"
    there.touch(mode=0o644)
    folder = Folder(tmp_path)
    folder.quarantine("one", [ROW])
    assert there.stat().st_mode & 0o777 == 0o600
    assert str(tmp_path) in folder.says
    assert "secrets" in folder.says


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.touch()
    (tmp_path / "quarantine.ndjson").symlink_to(elsewhere)
    with pytest.raises(Unwritten):
        Folder(tmp_path).quarantine("one", [ROW])
    assert elsewhere.read_bytes() == b""
