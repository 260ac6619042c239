"""Sign-in of people to the dashboard: authorization code with PKCE (RFC 6749 and 7636).

The page sends the code to this server, which exchanges it: issuers need not admit the page's origin
(CORS), and a secret of the client stays here. The page keeps the code verifier.
"""

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from job_orchestrator.common.errors import BadRequest
from job_orchestrator.common.messages.service import (
    SignedIn,
    SignInCode,
    SignInIssuer,
    SignInOptions,
)

if TYPE_CHECKING:
    # joserfc is needed only where issuers are configured.
    from job_orchestrator.server.auth.issuer import Issuer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class SignInClient:
    """Registration of this server as a client of the issuers.

    Without an ``id`` people can't sign in there.
    """

    id: str = ""
    secret: str = ""
    scope: str = ""


@dataclass(frozen=True)
class SignIn:
    """Sign-in at ``issuers``, by URL."""

    issuers: "Mapping[str, Issuer]"
    client: SignInClient

    async def options(self) -> SignInOptions:
        """Return the issuers that can be reached, and what is sent to them."""
        if not (self.client.id and self.issuers):
            return SignInOptions()
        found = await asyncio.gather(
            *(issuer.authorization_endpoint() for issuer in self.issuers.values()),
            return_exceptions=True,
        )
        listed = []
        for url, endpoint in zip(self.issuers, found, strict=True):
            if isinstance(endpoint, str):
                listed.append(SignInIssuer(url, endpoint))
            else:
                logger.warning("Nobody can sign in at %s: %s", url, endpoint)
        return SignInOptions(listed, self.client.id, self.client.scope)

    async def exchange(self, code: SignInCode) -> SignedIn:
        """Exchange a code for a token. Raises ``BadRequest``, ``Unauthorized``, ``TryLater``."""
        issuer = self.issuers.get(code.issuer)
        if issuer is None or not self.client.id:
            raise BadRequest(f"Nobody can sign in at {code.issuer[:200]!r} here")
        form = {
            "grant_type": "authorization_code",
            "client_id": self.client.id,
            "code": code.code,
            "code_verifier": code.code_verifier,
            "redirect_uri": code.redirect_uri,
        }
        if self.client.secret:
            form["client_secret"] = self.client.secret
        return SignedIn(await issuer.exchange(form))
