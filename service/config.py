"""Settings: flags over environment over a TOML file over defaults. The only reader of the environment.

Every setting ``x`` is the flag ``--x``, the variable ``AUTHSTORE_X`` and the file's key ``x`` (the Sentry DSN alone is
``SENTRY_DSN``, as everywhere). A secret can also be given as ``x_file``, the path of a file that holds it. A name
nobody knows is an error. No error and no repr holds a value.
"""

import base64
import binascii
import difflib
import os
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretBytes,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from service import dsn

PREFIX: Final = "AUTHSTORE_"
MASTER_KEY_BYTES: Final = 32
_SECRETS: Final = frozenset({"database_url", "master_key", "token", "sentry_dsn"})
_NEVER_EMPTY: Final = _SECRETS - {"sentry_dsn"}
_SECRET_FILE_LIMIT: Final = 65_536
_TOKEN = re.compile(r"[!-~]{16,512}")
_SENTRY_DSN = re.compile(r"https?://[^@/\s]+@[^@/\s]+/(?:[^@\s]*/)?\d+")
_SERVICE_LINK = re.compile(r"SERVICE_(?:HOST|PORT).*|PORT_\d+_(?:TCP|UDP).*")
# The kinds of fault whose sentence holds no input; any other is only called invalid.
_SAYABLE = re.compile(
    r"value_error|literal_error|path_type|(?:int|float)_(?:type|parsing|from_float)|(?:greater|less)_than(?:_equal)?"
    r"|string_(?:type|too_short|too_long)"
)
_SHOULD = re.compile(r"^(?:Input|String) should ")
# What a child process may inherit: no setting of ours and no PG* variable reaches it.
_CHILD_ENVIRON: Final = ("HOME", "LANG", "LC_ALL", "PATH", "TMPDIR", "TZ")


class ConfigError(Exception):
    """The settings cannot be used.

    ``faults`` has one sentence for each fault; each names a setting as the caller wrote it, none holds a value.
    """

    def __init__(self, faults: list[str]) -> None:
        super().__init__("\n".join(faults))
        self.faults = tuple(faults)


def _master_keys(value: object) -> bytes:
    """One key or several (the current one first) of 32 bytes each, put together.

    Each is 64 hexadecimal digits or base64 (either alphabet, padded or not); several stand apart by white space or commas.
    """
    texts = re.split(r"[\s,]+", value.strip()) if isinstance(value, str) else [""]
    return b"".join(_master_key(text) for text in texts)


def _master_key(text: str) -> bytes:
    try:
        if len(text) == 2 * MASTER_KEY_BYTES:
            key = binascii.unhexlify(text)
        else:
            standard = text.rstrip("=").translate(str.maketrans("-_", "+/"))
            key = base64.b64decode(standard + "=" * (-len(standard) % 4), validate=True)
    except ValueError:
        key = b""
    if len(key) != MASTER_KEY_BYTES:
        raise ValueError("must be 32 bytes as base64 or as 64 hexadecimal digits")
    return key


def _protected(value: SecretStr, info: ValidationInfo) -> SecretStr:
    environ = (info.context or {}).get("environ", {})
    return SecretStr(dsn.protected(value.get_secret_value(), environ))


def _token(value: SecretStr) -> SecretStr:
    if not _TOKEN.fullmatch(value.get_secret_value()):
        raise ValueError("must be 16 to 512 visible ASCII characters without a space")
    return value


def _expanded(path: Path) -> Path:
    try:
        return path.expanduser()
    except RuntimeError:
        raise ValueError("begins with a ~ that stands for no folder here") from None


def _sentry_dsn(value: SecretStr) -> SecretStr:
    if not _SENTRY_DSN.fullmatch(value.get_secret_value()):
        raise ValueError("must look like https://<key>@<host>/<project number>")
    return value


class Settings(BaseModel):
    """What was decided at start; never changes. Made by :func:`load_settings`.

    ``database_url`` is ready to connect with: the TLS rule of :func:`service.dsn.protected` is already applied.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    config: Path | None = None
    data_dir: Annotated[Path, AfterValidator(_expanded)] = Path("data")
    database_url: Annotated[SecretStr, AfterValidator(_protected)] | None = Field(default=None, repr=False)
    pg_bin: Annotated[Path, AfterValidator(_expanded)] | None = None
    pooler: Literal["none", "transaction"] = "none"
    pool_max: int = Field(default=10, ge=1, le=1000)
    host: str = Field(default="127.0.0.1", min_length=1)
    port: int = Field(default=8480, ge=0, le=65535)
    unix_socket: Annotated[Path, AfterValidator(_expanded)] | None = None
    workers: int = Field(default=1, ge=1, le=64)
    tls_cert: Annotated[Path, AfterValidator(_expanded)] | None = None
    tls_key: Annotated[Path, AfterValidator(_expanded)] | None = None
    tls_client_ca: Annotated[Path, AfterValidator(_expanded)] | None = None
    master_key: Annotated[SecretBytes, BeforeValidator(_master_keys)] | None = Field(default=None, repr=False)
    token: Annotated[SecretStr, AfterValidator(_token)] | None = Field(default=None, repr=False)
    max_body_mb: int = Field(default=64, ge=1, le=1024)
    request_timeout_s: float = Field(default=30.0, gt=0, le=3600)
    delete_window_days: int = Field(default=7, ge=0, le=3650)
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    sentry_dsn: Annotated[SecretStr, AfterValidator(_sentry_dsn)] | None = Field(default=None, repr=False)
    sentry_environment: str = Field(default="production", min_length=1, max_length=64)

    @property
    def embedded(self) -> bool:
        """Whether the service runs its own Postgres under ``data_dir``."""
        return self.database_url is None

    @property
    def master_keys(self) -> tuple[bytes, ...]:
        """The configured master keys, the current one first; none when they are not configured."""
        keys = b"" if self.master_key is None else self.master_key.get_secret_value()
        return tuple(keys[at : at + MASTER_KEY_BYTES] for at in range(0, len(keys), MASTER_KEY_BYTES))

    @property
    def max_body_bytes(self) -> int:
        """The largest accepted request body, in bytes."""
        return self.max_body_mb * 1024 * 1024

    def redacted(self) -> dict[str, str | int | float | None]:
        """Every setting by name, to be shown: secrets as "set" or None, the database URL without its password."""
        shown: dict[str, str | int | float | None] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            if name == "database_url" and self.database_url is not None:
                value = dsn.redacted(self.database_url.get_secret_value())
            elif name in _SECRETS:
                value = None if value is None else "set"
            shown[name] = str(value) if isinstance(value, Path) else value
        return shown

    @field_validator("pooler", "log_format", "log_level", mode="before")
    @classmethod
    def _any_case(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @model_validator(mode="after")
    def _whole_tls(self) -> "Settings":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key must be given together")
        if self.tls_client_ca is not None and self.tls_cert is None:
            raise ValueError("tls_client_ca needs tls_cert and tls_key")
        return self


def load_settings(*, environ: Mapping[str, str] | None = None, **flags: object) -> Settings:
    """The settings of this process.

    ``flags`` are settings by field name (also ``config`` and ``<secret>_file``); None means not given. ``environ``
    stands in for the process's environment; a variable that is set but empty counts as not given, but where the service
    would serve something else without it (the database, its keys).
    Raises ConfigError with every fault found.
    """
    environ = os.environ if environ is None else environ
    faults = _empty(environ)
    given = _Given(faults)
    flagged = {name: value for name, value in flags.items() if value is not None}
    in_environ = _from_environ(environ)
    path = flagged.get("config") or in_environ.get(f"{PREFIX}CONFIG")
    for name, value in _from_file(Path(str(path)), faults).items() if path else ():
        given.take(name, value, _key)
    given.next_source()
    for variable, value in in_environ.items():
        given.take(_setting_of(variable), value, _variable)
    given.next_source()
    for name, value in flagged.items():
        given.take(name, value, _flag)
    values = given.read()
    settings, invalid = _validate(values, given.where, environ)
    if faults or settings is None:
        raise ConfigError(faults + invalid)
    return settings


def protected_url(url: str) -> str:
    """A URL of another Postgres under the rule of our own (`dsn.protected`). Raises ValueError."""
    return dsn.protected(url, os.environ)


def child_environ(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment for a child process: what programs need to run, none of our settings and no ``PG*`` variable."""
    environ = os.environ if environ is None else environ
    return {name: environ[name] for name in _CHILD_ENVIRON if name in environ}


class _Given:
    """Gathers settings source by source, weakest first; a later source replaces a setting in whichever form."""

    def __init__(self, faults: list[str]) -> None:
        self.where: dict[str, str] = {}
        self._values: dict[str, object] = {}
        self._files: set[str] = set()
        self._seen: dict[str, str] = {}
        self._faults = faults

    def next_source(self) -> None:
        self._seen = {}

    def take(self, name: str, value: object, spelled: Callable[[str], str]) -> None:
        setting, from_file = _split(name)
        where = spelled(name)
        if setting is None:
            self._faults.append(_unknown(name, spelled))
        elif setting in self._seen:
            self._faults.append(f"{self._seen[setting]} and {where} are both given: use one of them.")
        else:
            self._seen[setting] = self.where[setting] = where
            self._values[setting] = value
            (self._files.add if from_file else self._files.discard)(setting)

    def read(self) -> dict[str, object]:
        """The settings, secrets read from the files that hold them."""
        values = dict(self._values)
        for setting in sorted(self._files):
            try:
                values[setting] = _read_secret(Path(str(values[setting])))
            except ValueError as fault:
                del values[setting]
                self._faults.append(f"{self.where[setting]} {fault}.")
        return values


def _split(name: str) -> tuple[str | None, bool]:
    """A written name as (setting or None when unknown, whether it names a file with the value)."""
    if name in Settings.model_fields:
        return name, False
    setting = name.removesuffix("_file")
    return (setting, True) if name.endswith("_file") and setting in _SECRETS else (None, False)


def _known() -> list[str]:
    return [*Settings.model_fields, *(f"{name}_file" for name in sorted(_SECRETS))]


def _variable(name: str) -> str:
    if name.startswith((PREFIX, "SENTRY_")):
        return name
    return name.upper() if name.startswith("sentry_dsn") else PREFIX + name.upper()


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _key(name: str) -> str:
    return f"{name} in the settings file"


def _setting_of(variable: str) -> str:
    """The setting a variable stands for; the variable itself when none does."""
    return next((name for name in _known() if _variable(name) == variable), variable)


def _from_environ(environ: Mapping[str, str]) -> dict[str, str]:
    ours = {_variable("sentry_dsn"), _variable("sentry_dsn_file")}
    return {name: value for name, value in environ.items() if value and (name.startswith(PREFIX) or name in ours)}


def _empty(environ: Mapping[str, str]) -> list[str]:
    """A substitution that failed must not become another, empty store."""
    return [
        f"{name} is set, but empty: give it a value, or do not set it."
        for setting in sorted(_NEVER_EMPTY)
        for name in (_variable(setting), _variable(f"{setting}_file"))
        if environ.get(name) == ""
    ]


def _from_file(path: Path, faults: list[str]) -> dict[str, Any]:
    # The parser's messages quote the text they stumble over, which may be a secret: only the line is told.
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        faults.append(f"The settings file cannot be read ({type(error).__name__}).")
    except ValueError as error:
        line = re.search(r"at line (\d+)", str(error))
        faults.append(f"The settings file is not TOML{f' (line {line[1]})' if line else ''}.")
    return {}


def _read_secret(path: Path) -> str:
    try:
        with path.open("rb") as file:
            content = file.read(_SECRET_FILE_LIMIT + 1)
    except OSError as error:
        raise ValueError(f"names a file that cannot be read ({type(error).__name__})") from None
    if len(content) > _SECRET_FILE_LIMIT:
        raise ValueError(f"names a file larger than {_SECRET_FILE_LIMIT} bytes")
    try:
        text = content.decode("utf-8").strip()
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise ValueError("names a file that is empty or not UTF-8 text")
    return text


def _unknown(name: str, spelled: Callable[[str], str]) -> str:
    bare = name.removeprefix(PREFIX)
    if _SERVICE_LINK.fullmatch(bare):
        return f"{name} is set by Kubernetes for a service of that name: use enableServiceLinks: false."
    alone = bare.lower().removesuffix("_file")
    near = [alone] if alone in Settings.model_fields else difflib.get_close_matches(bare.lower(), _known(), n=1)
    return f"{spelled(name)} is not a setting{f': did you mean {spelled(near[0])}?' if near else '.'}"


def _validate(
    values: dict[str, object], where: Mapping[str, str], environ: Mapping[str, str]
) -> tuple[Settings | None, list[str]]:
    try:
        return Settings.model_validate(values, context={"environ": environ}), []
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False)
    return None, [_sentence(fault["type"], fault["msg"], fault["loc"], where) for fault in found]


def _sentence(kind: str, message: str, location: tuple[int | str, ...], where: Mapping[str, str]) -> str:
    said = _SHOULD.sub("must ", message.removeprefix("Value error, ")) if _SAYABLE.fullmatch(kind) else "is not valid"
    named = f"{where[str(location[0])]} " if location else ""
    return f"{named}{said}."
