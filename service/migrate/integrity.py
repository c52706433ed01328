"""The integrity rules, asked of a session that is being moved."""

from collections.abc import Iterable
from itertools import islice
from typing import Any, Final

from protocol.checks import check

_LISTED: Final = 1000


def findings(creds: bytes | None, rows: Iterable[tuple[str, str, bytes]]) -> list[dict[str, Any]]:
    """What the rules find, up to 1,000 findings: rule, severity, type, id, message. Creds come first in what is asked."""
    return [
        {
            "rule": each.rule,
            "severity": each.severity,
            "type": each.ktype,
            "id": each.key_id,
            "message": each.message,
        }
        for each in islice(check(creds, rows), _LISTED)
    ]
