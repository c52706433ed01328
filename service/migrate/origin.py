"""Where a session came from, as it is remembered sealed beside it: enough to reach the source again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import urlsplit

from protocol.repairs import Repair
from service.errors import Corrupt
from service.migrate.plan import Options
from service.migrate.runs import options_plain
from service.migrate.source import Source
from service.migrate.sources import Layout, open_source

Place = tuple[str, str]
"""What makes two origins one source: ``--from`` and the layout."""


@dataclass(frozen=True, slots=True)
class Origin:
    """``spec``: what ``--from`` said, password and all. ``session``: its name there."""

    spec: str = field(repr=False)
    session: str
    options: Options
    layout: Layout | None = None

    @property
    def place(self) -> Place:
        return self.spec, json.dumps(self.layout, sort_keys=True)

    @property
    def shown(self) -> str:
        """What ``--from`` said without user, password and parameters."""
        if "://" not in self.spec:
            return self.spec
        try:
            parts = urlsplit(self.spec)
            port = "" if parts.port is None else f":{parts.port}"
        except ValueError:
            return self.spec.partition(":")[0]
        if "@" in parts.path:  # a password that is not escaped may reach there
            return parts.scheme
        return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"

    async def open(self) -> Source:
        """The source. Raises what `open_source` raises."""
        return await open_source(self.spec, self.layout)

    def encode(self) -> bytes:
        plain = {"spec": self.spec, "session": self.session, "layout": self.layout}
        return json.dumps({**plain, "options": options_plain(self.options)}).encode()

    @classmethod
    def decode(cls, text: bytes) -> Self:
        """Corrupt when it is none of ours."""
        try:
            plain: Mapping[str, Any] = json.loads(text)
            chosen = plain["options"]
            options = Options(
                frozenset(Repair(name) for name in chosen["repairs"]),
                chosen["keep_unknown"],
                chosen["skip_expired"],
                chosen["names"],
            )
            return cls(plain["spec"], plain["session"], options, plain["layout"])
        except (ValueError, KeyError, TypeError):
            raise Corrupt("origin", None) from None
