"""What is wrong with ``--from`` is said in a sentence that tells the causes apart and holds no password."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from service.errors import BadInput, ServiceError
from service.migrate.plan import Options
from service.migrate.reading import reading
from service.migrate.source import SourceAway, SourceRefused
from service.migrate.sources import open_source, settled


@pytest.mark.parametrize(
    ("spec", "kind", "says"),
    [
        ("files:/nope", SourceAway, "no such folder"),
        ("sqlite:/nope", SourceAway, "no such file or folder"),
        ("ndjson:/nope", SourceAway, "no such file"),
        ("postgresql://u:hunter2@127.0.0.1:1/d?sslmode=disable", SourceAway, "nothing listens"),
        ("mysql://u:hunter2@127.0.0.1:1/d", SourceAway, "nothing listens"),
        ("redis://u:hunter2@127.0.0.1:1", SourceAway, "nothing listens"),
        ("postgresql://u:hunter2@no.invalid/d", SourceAway, "host is not known"),
        ("mysql://u:hunter2@no.invalid/d", SourceAway, "host is not known"),
        ("redis://u:hunter2@no.invalid", SourceAway, "host is not known"),
        ("redis://u:hunter2@127.0.0.1:6379/abc", BadInput, "redis://user:password@host:port/number"),
        ("postgresql://u:hunter2@127.0.0.1:abc/d?sslmode=disable", BadInput, "URL"),
        ("mysql://u:hunter2@127.0.0.1:abc/d", BadInput, "URL"),
        ("mysql://u:hunter2@127.0.0.1:3306/test", SourceRefused, "user and password"),
        ("mysql://root@127.0.0.1:3306/absent_database", SourceRefused, "no database of that name"),
        ("redis://u:hunter2@127.0.0.1:6379", SourceRefused, "user and password"),
    ],
)
async def test_causes_are_told_apart(spec: str, kind: type[ServiceError], says: str) -> None:
    with pytest.raises(kind, match=says) as caught:
        await open_source(spec)
    assert "hunter2" not in repr(caught.value)


async def test_a_database_that_is_not_there_is_told(database_url: str) -> None:
    head, _, query = database_url.partition("?")
    with pytest.raises(SourceRefused, match="no database of that name"):
        await open_source(f"{head.rpartition('/')[0]}/absent?{query}")


def test_a_path_alone_is_what_lies_there(tmp_path: Path) -> None:
    database, lines = tmp_path / "auth.db", tmp_path / "kept.ndjson"
    with closing(sqlite3.connect(database)) as made:
        made.execute("CREATE TABLE keys (id)")
    lines.write_text("{}")
    found = [settled(str(path)) for path in (tmp_path, database, lines, tmp_path / "nothing")]
    assert found == [f"files:{tmp_path}", f"sqlite:{database}", f"ndjson:{lines}", f"{tmp_path / 'nothing'}"]


async def test_a_name_that_the_source_does_not_have_is_refused(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "creds.json").write_text("{}")
    async with await open_source(f"files:{tmp_path}") as source:
        with pytest.raises(BadInput) as caught:
            async with reading(source, Options(names={"shpo": "one"})):
                pass
        assert caught.value.pointer == "--map"
        async with reading(source, Options(names={"shop": "one"})) as read:
            assert read.names == ["shop"]
