"""Who asks: the tenant comes from the token alone, so no path can name another's data."""

from dataclasses import dataclass
from typing import Final, Literal

from service.errors import Forbidden

Scope = Literal["read", "write", "admin"]

_REACH: Final[dict[Scope, int]] = {"read": 0, "write": 1, "admin": 2}


@dataclass(frozen=True, slots=True)
class Caller:
    """A tenant and what its token allows: ``read`` sees, ``write`` also changes, ``admin`` also manages."""

    tenant: str
    scope: Scope

    def need(self, scope: Scope) -> str:
        """The tenant, or Forbidden."""
        if _REACH[self.scope] < _REACH[scope]:
            raise Forbidden
        return self.tenant
