"""What a database URL says: its hosts, how its link is protected, and how it may be shown. Opens no connection.

The reading follows the driver's own (hosts before the path, else ``?host=``), so that the hosts judged here are the
hosts it will call.
"""

import ipaddress
import ssl
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

_SCHEMES = ("postgresql", "postgres")
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
_VERIFIED = ("verify-ca", "verify-full")
# ssl.get_default_verify_paths() names a file on some systems only; the driver takes a file, not a folder.
_CA_BUNDLES = ("/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem")


def protected(url: str, environ: Mapping[str, str]) -> str:
    """The URL to connect with: ``sslmode=verify-full`` added when it leads across a network and names no mode itself.

    Where verification is on and nothing names a root certificate (``sslrootcert`` in the URL, ``PGSSLROOTCERT``,
    ``~/.postgresql/root.crt``), or the URL says ``sslrootcert=system``, the system's bundle is named.
    Raises ValueError with a sentence free of the URL's content.
    """
    parts, query = _parse(url)
    hosts = _hosts(parts, query)
    if not hosts and not is_local(environ.get("PGHOST", "")):
        raise ValueError("names no host while PGHOST does: write the host into the URL")
    mode = query.get("sslmode")
    if mode is None and not all(map(is_local, hosts)):
        mode = "verify-full"
        url = _with(url, "sslmode", mode)
    if mode in _VERIFIED:
        url = _with_roots(url, query.get("sslrootcert"), environ)
    return url


def redacted(url: str) -> str:
    """The URL with its hosts, database, user and TLS mode; passwords and every other parameter left out."""
    parts, query = _parse(url)
    user = parts.netloc.rpartition("@")[0].partition(":")[0] or query.get("user", "")
    shown = f"{parts.scheme}://{user + '@' if user else ''}{','.join(_hosts(parts, query))}{parts.path}"
    return shown + (f"?sslmode={query['sslmode']}" if "sslmode" in query else "")


def elsewhere(url: str) -> dict[str, str]:
    """What says beside host and path which database is meant: the parameters ``port``, ``dbname`` and ``database``."""
    _, query = _parse(url)
    return {name: query[name] for name in ("port", "dbname", "database") if name in query}


def _parse(url: str) -> tuple[SplitResult, dict[str, str]]:
    if url.partition("://")[0] not in _SCHEMES or "://" not in url:
        raise ValueError("must be a URL that begins with postgresql:// (the key=value form is not taken)")
    try:
        parts = urlsplit(url)
        query = {name: values[-1] for name, values in parse_qs(parts.query, strict_parsing=bool(parts.query)).items()}
    except ValueError:
        parts = None
    if parts is None or parts.fragment or "#" in url or parts.netloc.count("@") > 1:
        raise ValueError("is not a well-formed URL: write @ : / ? # % in a user or password as %40 %3A %2F %3F %23 %25")
    if "service" in query:
        raise ValueError("may not use a service file: write host, user and database into the URL")
    if query.get("sslmode", _SSL_MODES[0]) not in _SSL_MODES:
        raise ValueError(f"has an unknown sslmode: use one of {', '.join(_SSL_MODES)}")
    return parts, query


def _hosts(parts: SplitResult, query: Mapping[str, str]) -> list[str]:
    """Every host or socket folder the URL names, with its port as written; empty when it names none."""
    listed = unquote(parts.netloc.rpartition("@")[2]) or query.get("host", "")
    return [host for host in listed.split(",") if host]


def is_local(host: str) -> bool:
    """Whether a host, with or without a port, is a unix socket or this machine. An empty name is the local default."""
    name = host.strip()
    if not name or name[0] in "/@":
        return True
    name = name[1:].partition("]")[0] if name[0] == "[" else name if name.count(":") > 1 else name.partition(":")[0]
    if name.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _with(url: str, name: str, value: str) -> str:
    separator = "?" if "?" not in url else "" if url[-1] in "?&" else "&"
    return f"{url}{separator}{name}={value}"


def _with_roots(url: str, named: str | None, environ: Mapping[str, str]) -> str:
    if named == "system":
        head, _, query = url.partition("?")
        kept = [pair for pair in query.split("&") if not pair.startswith("sslrootcert=")]
        return _with(f"{head}?{'&'.join(kept)}" if kept else head, "sslrootcert", _system_bundle())
    home = environ.get("HOME")
    if named or environ.get("PGSSLROOTCERT") or (home and Path(home, ".postgresql", "root.crt").exists()):
        return url
    return _with(url, "sslrootcert", _system_bundle())


def _system_bundle() -> str:
    for path in (ssl.get_default_verify_paths().cafile, *_CA_BUNDLES):
        if path and Path(path).is_file():
            return path
    raise ValueError("needs a root certificate to verify its server: add sslrootcert=<file>, none was found here")
