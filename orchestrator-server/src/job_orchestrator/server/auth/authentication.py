"""Authentication of requests: by API tokens of a file, and by tokens of trusted issuers."""

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from job_orchestrator.common.errors import Unauthorized
from job_orchestrator.server.auth.claimed_groups import ClaimedGroups
from job_orchestrator.server.auth.sign_in import SignIn, SignInClient
from job_orchestrator.server.auth.token_file import digest
from job_orchestrator.server.auth.tokens import Tokens
from job_orchestrator.server.auth.web_tokens import decoded_part, is_web_token
from job_orchestrator.server.model import Principal
from job_orchestrator.server.store.identities import Identified, IdentityStore

if TYPE_CHECKING:
    # joserfc is needed only where issuers are configured.
    from job_orchestrator.server.auth.issuer import Claims, Issuer

logger = logging.getLogger(__name__)

MAX_REMEMBERED = 10_000
"""Verified tokens that are not verified again before they expire."""

MAX_GROUPS = 200
MAX_NAME = 200


@dataclass(frozen=True)
class ClaimNames:
    """Names of the claims that are read, and the groups whose members are administrators."""

    user_name: str = "preferred_username"
    groups: str = "groups"
    admin_groups: frozenset[str] = frozenset()


@dataclass
class Authentication:
    """Finds the principal of each request.

    Without a file of tokens and without issuers everybody is an administrator. ``groups`` are those
    that tokens of issuers name. ``now`` returns seconds since the epoch.
    """

    tokens: Tokens
    groups: ClaimedGroups = field(default_factory=ClaimedGroups)
    names: ClaimNames = field(default_factory=ClaimNames)
    client: SignInClient = field(default_factory=SignInClient)
    now: Callable[[], float] = time.time
    _issuers: "Mapping[str, Issuer]" = field(default_factory=dict)
    _identities: IdentityStore | None = None
    _remembered: OrderedDict[str, tuple[Principal, float]] = field(default_factory=OrderedDict)

    async def trust(self, issuers: "Sequence[Issuer]", identities: IdentityStore) -> None:
        """Accept the tokens of ``issuers`` as well. Their users are kept in ``identities``."""
        for user in await identities.all():
            self.groups.update(user)
        self._issuers = {issuer.url: issuer for issuer in issuers}
        self._identities = identities

    async def principal(self, token: str | None) -> Principal:
        """Return the principal of a token. Raises ``Unauthorized``, ``IssuerUnavailable``."""
        if self._identities is None:
            return await self.tokens.principal(token)
        if token is not None and is_web_token(token):
            return await self._of_issuer(token, self._identities)
        if token is not None and self.tokens.path is not None:
            return await self.tokens.principal(token)
        issuers = ", ".join(self._issuers)
        raise Unauthorized(f"A token of {issuers} is needed: Authorization: Bearer TOKEN")

    @property
    def sign_in(self) -> SignIn:
        """Sign-in of people at the issuers."""
        return SignIn(self._issuers, self.client)

    @contextmanager
    def in_use(self, token: str | None, abort: Callable[[], None]) -> Iterator[None]:
        """Call ``abort`` if the token becomes invalid during the block."""
        known = None if token is None else self._remembered.get(digest(token))
        if known is None:
            with self.tokens.in_use(token, abort):
                yield
            return
        left_s = max(known[1] - self.now(), 0.0)
        timer = asyncio.get_running_loop().call_later(left_s, abort)
        try:
            yield
        finally:
            timer.cancel()

    async def _of_issuer(self, token: str, identities: IdentityStore) -> Principal:
        hashed = digest(token)
        known = self._remembered.get(hashed)
        if known is not None and self.now() < known[1]:
            self._remembered.move_to_end(hashed)
            return known[0]
        issuer = self._issuers.get(str(decoded_part(token, 1).get("iss")))
        if issuer is None:
            raise Unauthorized(
                f"This token is of another issuer; accepted are: {', '.join(self._issuers)}"
            )
        claims = await issuer.verify(token)
        groups = self._groups(claims.content)
        identity = await identities.identify(
            claims.issuer, claims.subject, self._user_name(claims), groups
        )
        self.groups.update(identity)
        principal = self._principal(identity)
        self._remembered[hashed] = principal, claims.expires_at
        if len(self._remembered) > MAX_REMEMBERED:
            self._remembered.popitem(last=False)
        return principal

    def _principal(self, identity: Identified) -> Principal:
        is_admin = not self.names.admin_groups.isdisjoint(identity.groups)
        return Principal(None if is_admin else identity.user_id, name=identity.name)

    def _groups(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        given = claims.get(self.names.groups, [])
        if isinstance(given, str):
            given = [given]
        if not isinstance(given, list):
            return ()
        return tuple(sorted({str(group) for group in given})[:MAX_GROUPS])

    def _user_name(self, claims: "Claims") -> str:
        given = claims.content.get(self.names.user_name) or claims.subject
        return "".join(c for c in str(given) if c.isprintable())[:MAX_NAME]
