"""Verification of JSON Web Tokens of one issuer (OpenID Connect), with its published keys.

The keys are fetched at the first token, and again for a token with an unknown key: issuers replace
their keys. The accepted algorithms are fixed here: a token can't choose a weak one.
"""

import asyncio
import json
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiohttp
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from job_orchestrator.common.errors import TryLater, Unauthorized
from job_orchestrator.server.auth.web_tokens import decoded_part

logger = logging.getLogger(__name__)

ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "Ed25519")
"""Signatures with a public key. Of these, no key can be used with the algorithm of another."""

DISCOVERY = "/.well-known/openid-configuration"
MAX_ANSWER_BYTES = 1 << 20
FETCH_TIMEOUT_S = 10.0
MIN_FETCH_INTERVAL_S = 10.0
"""Time between two fetches of the keys: tokens with invented keys cause no more of them."""

MAX_KEY_AGE_S = 3600.0
"""Age at which keys are fetched again. A key that the issuer has withdrawn is not used longer."""

LEEWAY_S = 60.0
"""Difference of clocks that is allowed for."""

MAX_SUBJECT = 255
"""Length of a subject, as OpenID Connect limits it."""


class IssuerUnavailable(TryLater):
    """The keys of an issuer can't be fetched, so its tokens can't be verified."""

    retry_after_s = 10


@dataclass(frozen=True)
class Claims:
    """Claims of a verified token. ``expires_at`` is in seconds since the epoch."""

    issuer: str
    subject: str
    expires_at: float
    content: Mapping[str, Any]


class Issuer:
    """An issuer whose tokens are accepted if they are meant for one of ``audiences``.

    ``clock`` returns monotonic seconds, ``now`` seconds since the epoch.
    """

    def __init__(
        self,
        url: str,
        audiences: frozenset[str],
        http: aiohttp.ClientSession,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.url = url
        self._audiences = audiences
        self._http = http
        self._clock = clock
        self._now = now
        self._about: Mapping[str, Any] = {}
        self._keys: KeySet | None = None
        self._known: frozenset[str] = frozenset()
        self._fetched_at = self._tried_at = float("-inf")
        self._problem = ""
        self._fetching = asyncio.Lock()

    async def verify(self, token: str) -> Claims:
        """Return the claims of a token. Raises ``Unauthorized``, ``IssuerUnavailable``."""
        header = decoded_part(token, 0)
        keys = await self._keys_with(str(header.get("kid", "")))
        try:
            verified = jwt.decode(token, keys, algorithms=list(ALGORITHMS))
        except (JoseError, ValueError) as error:
            logger.info("A token of %s is refused: %s", self.url, error)
            raise Unauthorized(f"The signature of this token of {self.url} is not valid") from error
        return self._checked(verified.claims)

    async def authorization_endpoint(self) -> str:
        """Return the URL at which people sign in. Raises ``IssuerUnavailable``."""
        return await self._endpoint("authorization_endpoint")

    async def exchange(self, form: Mapping[str, str]) -> str:
        """Exchange an authorization code for an ID token.

        ``form`` are the fields of RFC 6749, section 4.1.3. Raises ``Unauthorized`` with the reason
        of the issuer, ``IssuerUnavailable``.
        """
        url = await self._endpoint("token_endpoint")
        try:
            async with (
                asyncio.timeout(FETCH_TIMEOUT_S),
                self._http.post(url, data=form, allow_redirects=False) as response,
            ):
                answer = json.loads(await _content_of(response))
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise IssuerUnavailable(f"{self.url} does not answer: {error}") from error
        token = answer.get("id_token") if isinstance(answer, dict) else None
        if not isinstance(token, str):
            given = answer if isinstance(answer, dict) else {}
            reason = given.get("error_description") or given.get("error") or "it gave no id_token"
            raise Unauthorized(f"{self.url} refused the sign-in: {str(reason)[:300]}")
        return token

    async def _endpoint(self, name: str) -> str:
        if not self._about:
            await self._keys_with("")
        url = self._about.get(name)
        if not isinstance(url, str):
            raise IssuerUnavailable(f"{self.url} has no {name}")
        return url

    def _checked(self, claims: Mapping[str, Any]) -> Claims:
        now = self._now()
        audiences = claims.get("aud")
        if isinstance(audiences, str):
            audiences = [audiences]
        if not (isinstance(audiences, list) and self._audiences.intersection(map(str, audiences))):
            raise Unauthorized("This token is meant for another program (its claim aud)")
        if claims.get("iss") != self.url:
            raise Unauthorized("This token names another issuer")
        expires_at = _time(claims, "exp")
        if expires_at is None or now >= expires_at + LEEWAY_S:
            raise Unauthorized("This token has expired; sign in again")
        for name in ("nbf", "iat"):
            begins = _time(claims, name)
            if begins is not None and begins > now + LEEWAY_S:
                raise Unauthorized("This token is not valid yet: compare the clocks")
        subject = claims.get("sub")
        if not (isinstance(subject, str) and 0 < len(subject) <= MAX_SUBJECT):
            raise Unauthorized("This token names no user (its claim sub)")
        return Claims(self.url, subject, expires_at + LEEWAY_S, claims)

    async def _keys_with(self, key_id: str) -> KeySet:
        """Return the keys, fetched again if ``key_id`` is not among them or they are old."""
        if self._is_due(key_id):
            async with self._fetching:
                if self._is_due(key_id):
                    await self._fetch()
        if self._keys is None:
            raise IssuerUnavailable(f"The keys of {self.url} can't be fetched: {self._problem}")
        return self._keys

    def _is_due(self, key_id: str) -> bool:
        now = self._clock()
        if now - self._tried_at < MIN_FETCH_INTERVAL_S:
            return False
        is_known = key_id in self._known or (not key_id and self._keys is not None)
        return not is_known or now - self._fetched_at >= MAX_KEY_AGE_S

    async def _fetch(self) -> None:
        """Fetch the keys. On failure, those before stay."""
        try:
            async with asyncio.timeout(FETCH_TIMEOUT_S):
                about = await self._get(self.url + DISCOVERY)
                if about.get("issuer") != self.url:
                    raise ValueError(f"{DISCOVERY} names another issuer: {about.get('issuer')}")
                keys = KeySet.import_key_set(
                    await self._get(str(about.get("jwks_uri")))  # type: ignore[arg-type]
                )
        except (aiohttp.ClientError, JoseError, OSError, ValueError, TypeError) as error:
            self._problem = str(error) or type(error).__name__
            logger.error("The keys of %s can't be fetched: %s", self.url, self._problem)
        else:
            self._about, self._keys, self._fetched_at = about, keys, self._clock()
            self._known = frozenset(str(key.kid) for key in keys.keys if key.kid)
            logger.info("%d keys of %s are loaded", len(keys.keys), self.url)
        finally:
            self._tried_at = self._clock()

    async def _get(self, url: str) -> dict[str, Any]:
        async with self._http.get(url, allow_redirects=False) as response:
            response.raise_for_status()
            answer = json.loads(await _content_of(response))
        if not isinstance(answer, dict):
            raise TypeError(f"{url} is not a JSON object")
        return answer


async def _content_of(response: aiohttp.ClientResponse) -> bytes:
    """Return the body of an answer. Raises ``ValueError`` if it is too large."""
    content = bytearray()
    async for block in response.content.iter_any():
        content += block
        if len(content) > MAX_ANSWER_BYTES:
            raise ValueError(f"{response.url} has more than {MAX_ANSWER_BYTES} bytes")
    return bytes(content)


@asynccontextmanager
async def open_issuers(
    urls: Sequence[str], audiences: frozenset[str]
) -> AsyncIterator[Sequence[Issuer]]:
    """Yield the issuers with these URLs, which share the connections for their keys."""
    async with aiohttp.ClientSession(trust_env=True) as http:
        yield [Issuer(url, audiences, http) for url in urls]


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value)
