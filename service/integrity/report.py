"""What a check found: counts of everything, and the findings themselves up to a bound."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from protocol.rules import RULES, Finding

MOST_FINDINGS: Final = 10_000


@dataclass(slots=True)
class Report:
    """A session's verdict at ``version``. ``checked``: rows, creds among them; ``highest_pre_key``: 0 when there is none."""

    tenant: str
    session: str = field(repr=False)
    version: int
    checked: int = 0
    findings: list[Finding] = field(default_factory=list, repr=False)
    rules: "Counter[str]" = field(default_factory=Counter)
    highest_pre_key: int = 0

    def add(self, findings: Iterable[Finding]) -> None:
        """Counts findings, and keeps them while there is room."""
        for finding in findings:
            self.rules[finding.rule] += 1
            if len(self.findings) < MOST_FINDINGS:
                self.findings.append(finding)

    @property
    def errors(self) -> int:
        return sum(count for rule, count in self.rules.items() if RULES[rule].severity == "error")

    @property
    def warnings(self) -> int:
        return sum(self.rules.values()) - self.errors

    @property
    def verdict(self) -> str:
        """``good``, ``warnings`` or ``errors``."""
        if self.errors:
            return "errors"
        return "warnings" if self.warnings else "good"
