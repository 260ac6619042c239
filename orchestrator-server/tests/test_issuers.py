"""Tokens of trusted issuers (OpenID Connect): who is admitted, as whom, and for how long."""

import asyncio
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

from job_orchestrator.common.errors import StartupError
from job_orchestrator.server import keys
from job_orchestrator.server.auth.token_file import create_token
from job_orchestrator.server.settings.server import read_settings
from job_orchestrator.server.store.identities import FIRST_USER_ID
from running_server import Server, StartServer

UNREACHABLE = "http://127.0.0.1:9"
AUDIENCE = "portal"


class FakeIssuer:
    """An issuer whose keys a test replaces. ``fetches`` counts requests for the keys."""

    def __init__(self) -> None:
        self.keys: list[RSAKey | ECKey] = [new_key("first")]
        self.fetches = 0
        self.up = True
        self.url = ""

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_get("/.well-known/openid-configuration", self._about)
        app.router.add_get("/keys", self._keys)
        return app

    async def _about(self, _: web.Request) -> web.Response:
        return web.json_response({"issuer": self.url, "jwks_uri": f"{self.url}/keys"})

    async def _keys(self, _: web.Request) -> web.Response:
        self.fetches += 1
        if not self.up:
            raise web.HTTPServiceUnavailable
        return web.json_response({"keys": [key.as_dict(private=False) for key in self.keys]})

    def token(self, subject: str = "ada", key: RSAKey | ECKey | None = None, **claims: Any) -> str:
        key = key or self.keys[0]
        now = int(time.time())
        content = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": subject,
            "iat": now,
            "exp": now + 600,
            **claims,
        }
        algorithm = "RS256" if isinstance(key, RSAKey) else "ES256"
        return jwt.encode({"alg": algorithm, "kid": key.kid}, content, key)


def new_key(name: str) -> RSAKey:
    return RSAKey.generate_key(2048, {"kid": name})


@pytest.fixture
async def issuer() -> AsyncIterator[FakeIssuer]:
    issuer = FakeIssuer()
    async with TestServer(issuer.app()) as server:
        issuer.url = str(server.make_url("")).rstrip("/")
        yield issuer


@pytest.fixture
async def server(issuer: FakeIssuer, start_server: StartServer) -> Server:
    return await start_server(UNREACHABLE, **settings(issuer))


def settings(issuer: FakeIssuer) -> dict[str, str]:
    return {
        "OIDC_ISSUERS": issuer.url,
        "OIDC_AUDIENCE": f"other,{AUDIENCE}",
        "OIDC_ADMIN_GROUPS": "staff",
        "SERVICE_EXAMPLE_MAX_ATTEMPTS": "100",
    }


async def call(
    server: Server, token: str | None, path: str = "/whoami", method: str = "GET", data: Any = None
) -> tuple[int, dict[str, Any]]:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    async with server.http.request(method, path, headers=headers, data=data) as response:
        return response.status, await response.json()


async def upload(server: Server, token: str, **fields: str) -> tuple[int, dict[str, Any]]:
    form = aiohttp.FormData({"service": "example", **fields}, quote_fields=False)
    form.add_field("file", b"exit 0\n", filename="run.sh")
    return await call(server, token, "/upload", "POST", form)


async def test_user_of_an_issuer_has_one_number(server: Server, issuer: FakeIssuer) -> None:
    status, ada = await call(server, issuer.token(preferred_username="Ada L."))
    assert status == 200
    assert (ada["user_id"], ada["name"], ada["admin"]) == (FIRST_USER_ID, "Ada L.", False)
    assert (await call(server, issuer.token("bob")))[1]["user_id"] == FIRST_USER_ID + 1
    again = (await call(server, issuer.token(preferred_username="Ada K.")))[1]
    assert (again["user_id"], again["name"]) == (FIRST_USER_ID, "Ada K.")
    status, listed = await call(server, issuer.token("root", groups=["staff"]), "/users")
    assert status == 200
    assert [(each["user_id"], each["name"], each["subject"]) for each in listed["users"]] == [
        (FIRST_USER_ID, "Ada K.", "ada"),
        (FIRST_USER_ID + 1, "bob", "bob"),
        (FIRST_USER_ID + 2, "root", "root"),
    ]


async def test_user_of_an_issuer_sees_and_submits_only_own_jobs(
    server: Server, issuer: FakeIssuer
) -> None:
    ada, bob = issuer.token(), issuer.token("bob")
    status, answer = await upload(server, ada)
    assert status == 201, answer
    assert (await upload(server, bob, user_id=str(FIRST_USER_ID)))[0] == 403
    assert (await call(server, bob, f"/jobs/{answer['id']}"))[0] == 404
    assert (await call(server, ada, f"/jobs/{answer['id']}"))[1]["user_id"] == FIRST_USER_ID
    assert (await call(server, bob, "/users"))[0] == 403
    admin = issuer.token("root", groups=["other", "staff"])
    assert (await call(server, admin, f"/jobs/{answer['id']}"))[0] == 200


def encoded(part: dict[str, Any]) -> str:
    return urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode()


def unsigned(issuer: FakeIssuer) -> str:
    claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "ada", "exp": 9e9}
    return f"{encoded({'alg': 'none'})}.{encoded(claims)}."


def signed_with_the_public_key(issuer: FakeIssuer) -> str:
    claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "ada", "exp": int(time.time()) + 600}
    signed = f"{encoded({'alg': 'HS256', 'kid': 'first'})}.{encoded(claims)}"
    mac = hmac.digest(issuer.keys[0].as_pem(private=False), signed.encode(), "sha256")
    return f"{signed}.{urlsafe_b64encode(mac).rstrip(b'=').decode()}"


def tampered(issuer: FakeIssuer) -> str:
    head, _, signature = issuer.token().split(".")
    claims = {"iss": issuer.url, "aud": AUDIENCE, "sub": "root", "exp": 9e9, "groups": ["staff"]}
    return f"{head}.{encoded(claims)}.{signature}"


REFUSED: dict[str, tuple[Callable[[FakeIssuer], str], str]] = {
    "expired": (lambda i: i.token(exp=int(time.time()) - 61), "has expired"),
    "no expiry": (lambda i: i.token(exp=None), "has expired"),
    "not yet": (lambda i: i.token(nbf=int(time.time()) + 3600), "compare the clocks"),
    "audience": (lambda i: i.token(aud="another"), "meant for another program"),
    "no audience": (lambda i: i.token(aud=None), "meant for another program"),
    "issuer": (lambda i: i.token(iss="https://evil.example"), "of another issuer"),
    "no subject": (lambda i: i.token(""), "names no user"),
    "long subject": (lambda i: i.token("x" * 256), "names no user"),
    "number as subject": (lambda i: i.token(sub=7), "names no user"),
    "other key": (lambda i: i.token(key=new_key("first")), "signature"),
    "unknown key": (lambda i: i.token(key=new_key("second")), "signature"),
    "other kind of key": (
        lambda i: i.token(key=ECKey.generate_key("P-256", {"kid": "first"})),
        "signature",
    ),
    "unsigned": (unsigned, "signature"),
    "public key as secret": (signed_with_the_public_key, "signature"),
    "tampered": (tampered, "signature"),
    "not a token": (lambda _: "a.b.c", "not a valid JSON Web Token"),
    "huge": (lambda i: i.token(x="x" * 20_000), ""),
    "opaque": (lambda _: "jo_unknown", "A token of http"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_token_that_is_not_good_is_refused_with_the_reason(
    server: Server, issuer: FakeIssuer, case: str
) -> None:
    make, reason = REFUSED[case]
    async with server.http.get(
        "/whoami", headers={"Authorization": f"Bearer {make(issuer)}"}
    ) as response:
        text = await response.text()
    assert response.status == (400 if case == "huge" else 401), text
    assert reason in text


async def test_clock_of_the_issuer_may_differ_a_little(server: Server, issuer: FakeIssuer) -> None:
    now = int(time.time())
    assert (await call(server, issuer.token(exp=now - 30)))[0] == 200
    assert (await call(server, issuer.token(nbf=now + 30, iat=now + 30)))[0] == 200


async def test_replaced_keys_are_fetched_and_invented_ones_cause_no_load(
    server: Server, issuer: FakeIssuer
) -> None:
    (known,) = server.app[keys.AUTHENTICATION]._issuers.values()
    later = 0.0
    known._clock = lambda: time.monotonic() + later
    old = issuer.token()
    assert (await call(server, old))[0] == 200
    assert issuer.fetches == 1
    for number in range(20):
        assert (await call(server, issuer.token(key=INVENTED, jti=str(number))))[0] == 401
    assert issuer.fetches == 1
    later = 11.0
    issuer.keys = [ECKey.generate_key("P-256", {"kid": "second"})]
    assert (await call(server, issuer.token()))[0] == 200
    assert issuer.fetches == 2
    withdrawn = issuer.token(key=INVENTED)
    assert (await call(server, withdrawn))[0] == 401


INVENTED = new_key("invented")


async def test_issuer_that_is_down_delays_only_what_is_not_known(
    server: Server, issuer: FakeIssuer
) -> None:
    (known,) = server.app[keys.AUTHENTICATION]._issuers.values()
    issuer.up = False
    async with server.http.get(
        "/whoami", headers={"Authorization": f"Bearer {issuer.token()}"}
    ) as response:
        assert response.status == 503
        assert response.headers["Retry-After"] == "10"
        assert "can't be fetched" in await response.text()
    issuer.up = True
    known._clock = lambda: time.monotonic() + 11
    assert (await call(server, issuer.token()))[0] == 200
    issuer.up = False
    known._clock = lambda: time.monotonic() + 7200
    assert (await call(server, issuer.token("bob")))[0] == 200, "the keys before are used"
    async with server.http.get("/whoami") as response:
        assert response.status == 401


async def test_stream_ends_when_its_token_expires(server: Server, issuer: FakeIssuer) -> None:
    authentication = server.app[keys.AUTHENTICATION]
    token = issuer.token()
    assert (await call(server, token))[0] == 200
    authentication.now = lambda: time.time() + 658  # two seconds before the token is refused
    headers = {"Authorization": f"Bearer {token}"}
    async with asyncio.timeout(60), server.http.get("/events", headers=headers) as response:
        assert response.status == 200
        with pytest.raises(aiohttp.ClientError):
            await response.read()


async def test_api_tokens_are_accepted_as_well(
    issuer: FakeIssuer, start_server: StartServer, tmp_path: Path
) -> None:
    file = tmp_path / "tokens.json"
    own, _ = await asyncio.to_thread(create_token, file, user_id=7, label="", valid_s=None)
    server = await start_server(UNREACHABLE, API_TOKENS_FILE=str(file), **settings(issuer))
    assert (await call(server, own))[1]["user_id"] == 7
    assert (await call(server, issuer.token()))[1]["user_id"] == FIRST_USER_ID
    assert (await call(server, None))[0] == 401


async def test_groups_of_tokens_have_the_terms_of_the_policy_file(
    issuer: FakeIssuer, start_server: StartServer, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[groups.course]\nclaim = "course-2026"\nmax_runs_per_user = 3\n')
    server = await start_server(UNREACHABLE, POLICY_FILE=str(policy), **settings(issuer))
    token = issuer.token(groups=["course-2026"])

    async def max_runs() -> int | None:
        limits: dict[str, int | None] = (await call(server, token))[1]["limits"]
        return limits["max_runs"]

    async with asyncio.timeout(60):
        while await max_runs() != 3:  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0.1)
    (known,) = server.app[keys.AUTHENTICATION].groups.members().items()
    assert known == ("course-2026", frozenset({FIRST_USER_ID}))
    await call(server, issuer.token(groups=[]))
    assert not server.app[keys.AUTHENTICATION].groups.members()


async def test_code_is_exchanged_only_for_issuers_of_this_server(
    server: Server, issuer: FakeIssuer, start_server: StartServer
) -> None:
    code = {"issuer": issuer.url, "code": "c", "code_verifier": "v", "redirect_uri": "http://x/"}
    status, answer = await call(server, None, "/sign-in", "POST", json.dumps(code))
    assert status == 400, "there is no OIDC_CLIENT_ID"
    assert "Nobody can sign in at" in answer["message"]
    assert (await call(server, None, "/sign-in"))[1]["issuers"] == []


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"OIDC_AUDIENCE": ""}, "OIDC_AUDIENCE"),
        ({"OIDC_ISSUERS": "http://login.example.org"}, "https://"),
        ({"OIDC_ISSUERS": "login.example.org"}, "OIDC_ISSUERS"),
        ({"OIDC_AUDIENCE": "a,,b"}, "OIDC_AUDIENCE"),
    ],
)
def test_settings_that_would_admit_others_are_refused(
    changed: dict[str, str], problem: str
) -> None:
    environment = {
        "SERVICE_EXAMPLE_UPLOAD_URL": f"{UNREACHABLE}/submit",
        "SERVICE_EXAMPLE_DOWNLOAD_URL": f"{UNREACHABLE}/retrieve",
        "OIDC_ISSUERS": "https://login.example.org/realms/lab",
        "OIDC_AUDIENCE": AUDIENCE,
        **changed,
    }
    with pytest.raises(StartupError, match=problem):
        read_settings({name: value for name, value in environment.items() if value}, {})
