"""Header -> caller. The token is compared by the store; here it is only found."""

from aiohttp import web

from service.errors import Unauthorized, Unavailable
from service.store import AuthStore, Caller

_LONGEST = 1024


async def caller_of(request: web.Request, store: AuthStore) -> Caller:
    """Who asks, by ``Authorization: Bearer <token>``. Raises Unauthorized, Unavailable."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token or len(token) > _LONGEST:
        raise Unauthorized
    if not store.is_open:
        raise Unavailable
    return await store.tokens.find(token)
