"""A role of a Postgres of one's own that lacks something: which privilege, and what to run, also where commands say it."""

import asyncio
import base64
import secrets
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest
from command_line import Cli
from external_postgres import ExternalPostgres

KEY = base64.b64encode(bytes(range(32))).decode()


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExternalPostgres]:
    with ExternalPostgres(tmp_path_factory.mktemp("privileges") / "postgres") as running:
        yield running


class Scene:
    """A database and a role that owns nothing in it, of this test's own; the role's name has to be quoted."""

    def __init__(self, postgres: ExternalPostgres) -> None:
        self.postgres = postgres
        self.password = secrets.token_urlsafe(12)
        self.database, self.role = (f"{word}-{secrets.token_hex(3)}" for word in ("d", "r"))
        self.run(f'CREATE DATABASE "{self.database}"', on="postgres")
        self.run(f"CREATE ROLE \"{self.role}\" LOGIN PASSWORD '{self.password}'")

    def url(self, role: str, password: str, database: str) -> str:
        return f"postgresql://{role}:{password}@127.0.0.1:{self.postgres.port}/{database}?sslmode=disable"

    def run(self, *statements: str, on: str | None = None) -> None:
        """As a superuser, a transaction each."""

        async def work() -> None:
            connection = await asyncpg.connect(self.postgres.url.replace("/postgres?", f"/{on or self.database}?"))
            for statement in statements:
                await connection.execute(
                    statement.replace("{role}", f'"{self.role}"').replace("{db}", f'"{self.database}"')
                )
            await connection.close()

        asyncio.run(work())

    def said(self, tmp_path: Path, *command: str, database: str | None = None, password: str | None = None) -> str:
        """What a command says on the way to exit code 1."""
        url = self.url(self.role, password or self.password, database or self.database)
        done = Cli(tmp_path / "data", AUTHSTORE_DATABASE_URL=url, AUTHSTORE_MASTER_KEY=KEY)(*command)
        assert done.code == 1, done
        assert self.password not in done.err
        lines = [line for line in done.err.splitlines() if line.startswith("authstore: ")]
        assert len(lines) == 1, done
        return lines[0].removeprefix("authstore: ")


@pytest.fixture
def scene(postgres: ExternalPostgres) -> Scene:
    return Scene(postgres)


@pytest.mark.parametrize("command", ["serve", "serve --workers 2", "doctor", "schema apply", "sessions list"])
def test_a_role_that_may_not_create_in_the_schema(scene: Scene, tmp_path: Path, command: str) -> None:
    """As every role from Postgres 15 on, in `public`."""
    said = scene.said(tmp_path, *command.split())
    assert said == (
        f'the role "{scene.role}" may not create in the schema public: '
        f'run GRANT CREATE, USAGE ON SCHEMA public TO "{scene.role}" as the schema\'s owner'
    )


def test_what_it_says_to_run_mends_it(scene: Scene, tmp_path: Path) -> None:
    said = scene.said(tmp_path, "doctor")
    scene.run(said.partition(": run ")[2].partition(" as the")[0])
    url = scene.url(scene.role, scene.password, scene.database)
    done = Cli(tmp_path / "data", AUTHSTORE_DATABASE_URL=url, AUTHSTORE_MASTER_KEY=KEY)("doctor")
    assert done.code in {0, 3}, done


@pytest.mark.parametrize(
    "statement",
    ["REVOKE ALL ON SCHEMA public FROM PUBLIC", "ALTER ROLE {role} IN DATABASE {db} SET search_path = absent"],
)
def test_a_role_with_no_schema_to_create_in(scene: Scene, tmp_path: Path, statement: str) -> None:
    scene.run(statement)
    said = scene.said(tmp_path, "serve")
    assert said == (
        f'the role "{scene.role}" finds no schema in its search path: one that is not there, or on which it has no USAGE; '
        f'run GRANT CREATE, USAGE ON SCHEMA public TO "{scene.role}" as the schema\'s owner, or set another search_path'
    )


@pytest.mark.parametrize("command", ["serve", "schema status"])
def test_tables_that_another_role_made(scene: Scene, tmp_path: Path, command: str) -> None:
    url = scene.postgres.url.replace("/postgres?", f"/{scene.database}?")
    Cli(tmp_path / "data", AUTHSTORE_DATABASE_URL=url, AUTHSTORE_MASTER_KEY=KEY).good("schema", "apply")
    scene.run("GRANT CREATE, USAGE ON SCHEMA public TO {role}")
    assert scene.said(tmp_path, *command.split()) == (
        f'the role "{scene.role}" may not use the tables of the service in the schema public, which postgres made: '
        f'connect as that role, or run GRANT postgres TO "{scene.role}"'
    )


def test_a_role_that_may_not_connect(scene: Scene, tmp_path: Path) -> None:
    scene.run("REVOKE CONNECT ON DATABASE {db} FROM PUBLIC")
    assert scene.said(tmp_path, "serve") == (
        "the role may not connect to the database that the URL names: run GRANT CONNECT ON DATABASE <database> TO <role>"
    )


def test_a_database_that_is_not_there(scene: Scene, tmp_path: Path) -> None:
    said = scene.said(tmp_path, "serve", database="absent")
    assert said == "the database that the URL names does not exist: run CREATE DATABASE <database>"


def test_a_wrong_password(scene: Scene, tmp_path: Path) -> None:
    said = scene.said(tmp_path, "serve", password="wrong")
    assert said == "the database refuses the user or the password"


def test_a_role_that_may_not_log_in(scene: Scene, tmp_path: Path) -> None:
    scene.run("ALTER ROLE {role} NOLOGIN")
    said = scene.said(tmp_path, "serve")
    assert (
        said == "the database does not let this user in: it may not log in, or pg_hba.conf does not admit it from here"
    )
