"""Settings: which source wins, what is refused, and that nothing shown holds a secret."""

import base64
import inspect
import ssl
from urllib.parse import parse_qs, urlsplit

import pytest
from needles import Needles

from service.config import ConfigError, Settings, child_environ, load_settings

KEY = bytes(range(32))


def faults(environ=None, **flags) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_settings(environ=environ or {}, **flags)
    return caught.value.faults


def loaded(environ=None, **flags) -> Settings:
    return load_settings(environ=environ or {}, **flags)


@pytest.fixture
def toml(tmp_path):
    def write(text: str) -> str:
        path = tmp_path / "authstore.toml"
        path.write_text(text)
        return str(path)

    return write


def test_defaults():
    settings = loaded()
    assert (settings.host, settings.port, settings.pool_max, settings.workers) == ("127.0.0.1", 8480, 10, 1)
    assert (settings.embedded, settings.max_body_bytes, settings.delete_window_days) == (True, 64 * 2**20, 7)
    assert (settings.master_key, settings.token, settings.sentry_dsn) == (None, None, None)


def test_a_flag_beats_the_environment_which_beats_the_file(toml):
    path = toml("port = 1\nhost = 'file'\nworkers = 3\n")
    settings = loaded({"AUTHSTORE_CONFIG": path, "AUTHSTORE_PORT": "2", "AUTHSTORE_HOST": "environment"}, port=4)
    assert (settings.port, settings.host, settings.workers) == (4, "environment", 3)


def test_the_flag_decides_which_file_is_read(toml):
    assert loaded({"AUTHSTORE_CONFIG": "/nowhere.toml"}, config=toml("port = 9")).port == 9


def test_a_flag_of_none_and_an_empty_variable_are_not_given():
    assert loaded({"AUTHSTORE_PORT": "", "SENTRY_DSN": "", "SENTRY_DSN_FILE": ""}, host=None).port == 8480


@pytest.mark.parametrize("name", ["DATABASE_URL", "MASTER_KEY", "TOKEN", "DATABASE_URL_FILE", "MASTER_KEY_FILE"])
def test_a_substitution_that_failed_does_not_become_another_store(name):
    assert faults({f"AUTHSTORE_{name}": ""}) == (
        f"AUTHSTORE_{name} is set, but empty: give it a value, or do not set it.",
    )


def test_a_tilde_is_a_home_everywhere(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert loaded({"AUTHSTORE_DATA_DIR": "~/kept"}).data_dir == tmp_path / "kept"
    assert loaded(unix_socket="~/s").unix_socket == tmp_path / "s"
    (fault,) = faults({"AUTHSTORE_DATA_DIR": "~nobody-of-this-name/kept"})
    assert fault == "AUTHSTORE_DATA_DIR begins with a ~ that stands for no folder here."


def test_other_variables_are_nobody_s_business():
    loaded({"PATH": "/bin", "SENTRY_TRACE": "1", "AUTH": "x", "PGHOST": "db.example"})


def test_settings_never_change():
    with pytest.raises(ValueError, match="frozen"):
        loaded().port = 1


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"AUTHSTORE_PROT": "x"}, "AUTHSTORE_PROT is not a setting: did you mean AUTHSTORE_PORT?"),
        ({"AUTHSTORE_port": "1"}, "AUTHSTORE_port is not a setting: did you mean AUTHSTORE_PORT?"),
        ({"AUTHSTORE_SENTRY_DSN": "x"}, "AUTHSTORE_SENTRY_DSN is not a setting: did you mean SENTRY_DSN?"),
        ({"AUTHSTORE_TOKENFILE": "x"}, "AUTHSTORE_TOKENFILE is not a setting: did you mean AUTHSTORE_TOKEN_FILE?"),
        ({"AUTHSTORE_PORT_FILE": "x"}, "AUTHSTORE_PORT_FILE is not a setting: did you mean AUTHSTORE_PORT?"),
        ({"AUTHSTORE_QQQQQQ": "x"}, "AUTHSTORE_QQQQQQ is not a setting."),
        ({"AUTHSTORE_PORT_8480_TCP": "tcp://x"}, "Kubernetes"),
        ({"AUTHSTORE_SERVICE_HOST": "10.0.0.1"}, "Kubernetes"),
    ],
)
def test_an_unknown_variable_is_named_with_the_nearest_known(environ, said):
    (fault,) = faults(environ)
    assert said in fault


def test_an_unknown_key_of_the_file_and_an_unknown_flag(toml):
    path = toml("prot = 1\n[table]\nx = 1")
    assert faults({"AUTHSTORE_CONFIG": path}, hots="x") == (
        "prot in the settings file is not a setting: did you mean port in the settings file?",
        "table in the settings file is not a setting.",
        "--hots is not a setting: did you mean --host?",
    )


@pytest.mark.parametrize(
    ("environ", "said"),
    [
        ({"AUTHSTORE_PORT": "x"}, "AUTHSTORE_PORT must be a valid integer"),
        ({"AUTHSTORE_PORT": "65536"}, "AUTHSTORE_PORT must be less than or equal to 65535"),
        ({"AUTHSTORE_WORKERS": "0"}, "AUTHSTORE_WORKERS must be greater than or equal to 1"),
        ({"AUTHSTORE_REQUEST_TIMEOUT_S": "0"}, "AUTHSTORE_REQUEST_TIMEOUT_S must be greater than 0"),
        ({"AUTHSTORE_REQUEST_TIMEOUT_S": "nan"}, "AUTHSTORE_REQUEST_TIMEOUT_S must be"),
        ({"AUTHSTORE_POOLER": "statement"}, "AUTHSTORE_POOLER must be 'none' or 'transaction'"),
        ({"AUTHSTORE_LOG_LEVEL": "loud"}, "AUTHSTORE_LOG_LEVEL must be"),
        ({"AUTHSTORE_TOKEN": "two words, and enough"}, "AUTHSTORE_TOKEN must be"),
        ({"AUTHSTORE_TOKEN": "easily-guessed!"}, "AUTHSTORE_TOKEN must be 16 to 512"),
        ({"SENTRY_DSN": "nonsense"}, "SENTRY_DSN must look like"),
        ({"AUTHSTORE_TLS_CERT": "c"}, "tls_cert and tls_key must be given together"),
        ({"AUTHSTORE_TLS_CLIENT_CA": "c"}, "tls_client_ca needs tls_cert"),
        ({"AUTHSTORE_CONFIG": "/nowhere.toml"}, "cannot be read (FileNotFoundError)"),
    ],
)
def test_each_fault_is_one_sentence(environ, said):
    (fault,) = faults(environ)
    assert said in fault
    assert fault.endswith(".")


def test_all_faults_are_told_at_once():
    environ = {"AUTHSTORE_PORT": "x", "AUTHSTORE_NOPE": "x", "AUTHSTORE_TOKEN_FILE": "/nowhere"}
    assert len(faults(environ, workers=0)) == 4


def test_case_of_a_choice_does_not_matter():
    assert loaded({"AUTHSTORE_LOG_LEVEL": "WARNING"}).log_level == "warning"


@pytest.mark.parametrize(
    "text",
    [
        KEY.hex(),
        KEY.hex().upper(),
        base64.b64encode(KEY).decode(),
        base64.b64encode(KEY).decode().rstrip("="),
        base64.urlsafe_b64encode(b"\xff" * 32).decode(),
        f" {KEY.hex()}\n",
    ],
)
def test_a_master_key_is_32_bytes_in_any_usual_spelling(text):
    key = loaded({"AUTHSTORE_MASTER_KEY": text}).master_key.get_secret_value()
    assert key in (KEY, b"\xff" * 32)


@pytest.mark.parametrize(
    "text",
    [
        KEY.hex()[:-1],
        KEY.hex()[:-1] + "g",
        KEY.hex() + "00",
        base64.b64encode(KEY[:-1]).decode(),
        "é" * 32,
        "=",
        "-" * 4,
    ],
)
def test_any_other_master_key_is_refused(text):
    assert faults({"AUTHSTORE_MASTER_KEY": text}) == (
        "AUTHSTORE_MASTER_KEY must be 32 bytes as base64 or as 64 hexadecimal digits.",
    )


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("MASTER_KEY", KEY.hex()),
        ("TOKEN", "a-secret-of-a-token"),
        ("DATABASE_URL", "postgresql://u:p@localhost/d"),
        ("SENTRY_DSN", "https://k@h.example/1"),
    ],
)
def test_every_secret_can_come_from_a_file(tmp_path, name, content):
    (tmp_path / "secret").write_text(content + "\n")
    variable = f"{name}_FILE" if name == "SENTRY_DSN" else f"AUTHSTORE_{name}_FILE"
    secret = getattr(loaded({variable: str(tmp_path / "secret")}), name.lower()).get_secret_value()
    assert secret == (KEY if name == "MASTER_KEY" else content)


def test_a_secret_given_twice_in_one_source_is_refused(tmp_path):
    (tmp_path / "secret").write_text("t" * 16)
    environ = {"AUTHSTORE_TOKEN": "t" * 16, "AUTHSTORE_TOKEN_FILE": str(tmp_path / "secret")}
    assert faults(environ) == ("AUTHSTORE_TOKEN and AUTHSTORE_TOKEN_FILE are both given: use one of them.",)


def test_a_stronger_source_replaces_a_secret_in_either_form(tmp_path, toml):
    (tmp_path / "secret").write_text("from-the-file-itself")
    path = toml("token = 'weak'")
    environ = {"AUTHSTORE_CONFIG": path, "AUTHSTORE_TOKEN_FILE": str(tmp_path / "secret")}
    assert loaded(environ).token.get_secret_value() == "from-the-file-itself"
    assert loaded(environ, token="given-as-a-flag-").token.get_secret_value() == "given-as-a-flag-"


@pytest.mark.parametrize(
    ("content", "said"), [(b"", "empty"), (b" \n", "empty"), (b"\xff", "UTF-8"), (b"x" * 70_000, "65536")]
)
def test_a_secret_file_without_a_secret(tmp_path, content, said):
    (tmp_path / "secret").write_bytes(content)
    (fault,) = faults({"AUTHSTORE_TOKEN_FILE": str(tmp_path / "secret")})
    assert fault.startswith("AUTHSTORE_TOKEN_FILE names a file")
    assert said in fault


def _options(url: str, **environ: str) -> dict[str, list[str]]:
    dsn = loaded({"AUTHSTORE_DATABASE_URL": url, **environ}).database_url.get_secret_value()
    assert dsn.startswith(url.partition("?")[0])
    return parse_qs(urlsplit(dsn).query)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@db.example/d",
        "postgres://u:p@db.example:6432/d?application_name=x",
        "postgresql://u@10.0.0.5/d",
        "postgresql://u@10.0.0.5/d?",
        "postgresql://u@10.0.0.5/d?sslmode=",
        "postgresql://u@127.0.0.1.example/d",
        "postgresql://u@localhost.example/d",
        "postgresql://u@localhost,db.example:5433/d",
        "postgresql://u@[2001:db8::1]:5432/d",
        "postgresql:///d?host=db.example",
        "postgresql:///d?host=/run/postgresql,db.example",
    ],
)
def test_a_database_across_a_network_is_verified_in_full(url):
    assert _options(url, PGSSLROOTCERT="/ca.pem")["sslmode"] == ["verify-full"]


@pytest.mark.parametrize(
    "url",
    [
        "postgresql:///d",
        "postgresql://u@/d",
        "postgresql://u:p@localhost/d",
        "postgresql://LOCALHOST:5433/d",
        "postgresql://127.0.0.1,127.9.9.9:5433/d",
        "postgresql://[::1]:5432/d",
        "postgresql:///d?host=/run/postgresql",
        "postgresql://u@%2Frun%2Fpostgresql/d",
    ],
)
def test_a_local_database_is_left_as_it_is(url):
    assert loaded({"AUTHSTORE_DATABASE_URL": url}).database_url.get_secret_value() == url


@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require"])
def test_what_the_url_says_itself_is_kept(mode):
    assert _options(f"postgresql://db.example/d?sslmode={mode}") == {"sslmode": [mode]}


def test_the_system_s_certificates_stand_in_for_a_missing_root(tmp_path):
    bundle = _options("postgresql://db.example/d", HOME=str(tmp_path))["sslrootcert"]
    assert bundle == _options("postgresql://db.example/d?sslmode=verify-ca&sslrootcert=system")["sslrootcert"]
    assert ssl.create_default_context(cafile=bundle[0]).get_ca_certs() or bundle[0]
    (tmp_path / ".postgresql").mkdir()
    (tmp_path / ".postgresql" / "root.crt").touch()
    assert _options("postgresql://db.example/d", HOME=str(tmp_path)) == {"sslmode": ["verify-full"]}
    assert _options("postgresql://db.example/d?sslrootcert=/my.pem")["sslrootcert"] == ["/my.pem"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("host=db.example dbname=d", "key=value"),
        ("mysql://db.example/d", "postgresql://"),
        ("postgresql://u:p@ss@db.example/d", "%40"),
        ("postgresql://u:p#ss@db.example/d", "%23"),
        ("postgresql://u:p@[::1/d", "well-formed"),
        ("postgresql://db.example/d?service=x", "service file"),
        ("postgresql://db.example/d?sslmode=full", "unknown sslmode"),
        ("postgresql://db.example/d?sslmode", "well-formed"),
    ],
)
def test_a_database_url_that_is_not_understood_is_refused(url, said):
    (fault,) = faults({"AUTHSTORE_DATABASE_URL": url})
    assert said in fault
    assert "ss@" not in fault


def test_pghost_may_not_choose_the_host_behind_the_tls_rule():
    environ = {"AUTHSTORE_DATABASE_URL": "postgresql:///d", "PGHOST": "db.example"}
    assert "PGHOST" in faults(environ)[0]
    loaded({**environ, "PGHOST": "/run/postgresql"})


def test_the_driver_reads_the_same_hosts_and_mode(monkeypatch):
    from asyncpg.connect_utils import _parse_connect_dsn_and_args

    for name in ("PGHOST", "PGPORT", "PGSSLMODE", "PGSERVICE"):
        monkeypatch.delenv(name, raising=False)
    url = "postgresql://u:p%40%3A@h1.example,h2.example:5433/d?application_name=x&sslrootcert=system"
    dsn = loaded({"AUTHSTORE_DATABASE_URL": url}).database_url.get_secret_value()
    reader = inspect.signature(_parse_connect_dsn_and_args).parameters
    wanted = {**dict.fromkeys(reader), "dsn": dsn}
    addresses, parameters = _parse_connect_dsn_and_args(**wanted)
    assert addresses == [("h1.example", 5432), ("h2.example", 5433)]
    assert parameters.password == "p@:"
    assert parameters.ssl.check_hostname
    assert parameters.ssl.verify_mode is ssl.CERT_REQUIRED


def test_nothing_shown_holds_a_secret(tmp_path, toml):
    needles = Needles("config")
    secret, key = needles.word(1), needles.key(2)
    (tmp_path / "url").write_text(f"postgresql://u:{secret}@db.example/d?password={secret}")
    settings = loaded(
        {
            "AUTHSTORE_MASTER_KEY": key.hex(),
            "AUTHSTORE_TOKEN": secret,
            "AUTHSTORE_DATABASE_URL_FILE": str(tmp_path / "url"),
            "SENTRY_DSN": f"https://{secret}@h.example/1",
        }
    )
    shown = [repr(settings), str(settings), f"{settings.token!r} {settings.master_key!r}", str(settings.redacted())]
    assert needles.find_in("\n".join(shown).encode()) == []
    assert settings.redacted()["database_url"] == "postgresql://u@db.example/d?sslmode=verify-full"
    held = settings.database_url.get_secret_value() + str(settings.master_key.get_secret_value())
    assert {hit.needle for hit in needles.find_in(held.encode())} >= {1, 2}


@pytest.mark.parametrize("name", [n for n in Settings.model_fields if n not in ("host", "sentry_environment")])
def test_no_fault_holds_the_value_it_is_about(name, toml, tmp_path):
    needles = Needles("faults")
    bad = f"{needles.word(1)} {needles.key(2).hex()}"
    variable = "SENTRY_DSN" if name == "sentry_dsn" else f"AUTHSTORE_{name.upper()}"
    (tmp_path / "secret").write_text(bad)
    for environ, flags in (
        ({variable: bad}, {}),
        ({}, {name: bad}),
        ({"AUTHSTORE_CONFIG": toml(f"{name} = '{bad}'\n'{bad}")}, {}),
        ({f"{variable}_FILE": str(tmp_path / "secret")}, {}),
    ):
        error = refused(environ, flags)
        if error is not None:
            assert error.__context__ is None
            assert needles.find_in(f"{error!r} {error} {error.faults}".encode()) == []


def refused(environ, flags) -> ConfigError | None:
    try:
        load_settings(environ=environ, **flags)
    except ConfigError as error:
        return error
    return None


def test_a_child_process_inherits_nothing_of_ours():
    environ = {"PATH": "/bin", "AUTHSTORE_TOKEN": "x", "SENTRY_DSN": "x", "PGPASSWORD": "x", "TZ": "UTC"}
    assert child_environ(environ) == {"PATH": "/bin", "TZ": "UTC"}


def test_the_process_environment_is_the_default(monkeypatch):
    monkeypatch.setenv("AUTHSTORE_PORT", "1234")
    assert load_settings().port == 1234
