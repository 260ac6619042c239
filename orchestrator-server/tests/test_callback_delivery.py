"""Calling users' URLs: which, how it is signed, and what a receiver can't make the server do."""

import base64
import contextlib
import hashlib
import hmac
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from job_orchestrator.server.callbacks import delivery as webhook
from job_orchestrator.server.callbacks.delivery import (
    CallbackFailed,
    CallbackUnwanted,
    Message,
    WebhookCaller,
)
from job_orchestrator.server.callbacks.rules import (
    CallbackRefused,
    CallbackRules,
    is_public,
    secret_bytes,
)

MESSAGE = Message("job_1", b'{"id":1}')
KEY = b"0123456789abcdef"
Call = Callable[..., Any]


class Receiver:
    """Answers with a status, and keeps what it was told."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.told: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.told.append((dict(request.headers), await request.read()))
        return web.Response(status=self.status, headers=self.headers)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{tail:.*}", receiver.take)
    async with TestServer(app) as server:
        receiver.url = str(server.make_url("/hook?of=7"))
        yield receiver


@pytest.fixture
async def call() -> AsyncIterator[Call]:
    """Call a URL by rules."""
    async with contextlib.AsyncExitStack() as stack:

        async def call(url: str, patterns: str = "*", allow_private: bool = True) -> None:
            rules = CallbackRules((patterns,), allow_private)
            caller = WebhookCaller(rules, KEY, lambda: 1_800_000_000.5)
            stack.push_async_callback(caller.close)
            await caller.call(url, MESSAGE)

        yield call


async def test_call_is_signed_as_standard_webhooks_are(receiver: Receiver, call: Call) -> None:
    await call(receiver.url)
    ((headers, body),) = receiver.told
    assert body == MESSAGE.body
    assert headers["Content-Type"] == "application/json"
    assert headers["webhook-id"] == MESSAGE.id
    assert headers["webhook-timestamp"] == "1800000000"
    digest = hmac.new(KEY, b'job_1.1800000000.{"id":1}', hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
    assert "Authorization" not in headers


def test_signature_is_that_of_the_reference() -> None:
    # The example of https://github.com/standard-webhooks/standard-webhooks/tree/main/libraries
    key = secret_bytes("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    message = Message("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}')
    assert webhook.signature(key, message, 1614265330) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@pytest.mark.parametrize("status", [302, 400, 404, 500, 503])
async def test_answer_that_is_no_success_is_a_failure(
    receiver: Receiver, call: Call, status: int
) -> None:
    receiver.status = status
    receiver.headers = {"Location": receiver.url}
    with pytest.raises(CallbackFailed, match=str(status)):
        await call(receiver.url)
    assert len(receiver.told) == 1, "a redirect is not followed"


async def test_receiver_that_is_gone_for_good_is_not_called_again(
    receiver: Receiver, call: Call
) -> None:
    receiver.status = 410
    with pytest.raises(CallbackUnwanted):
        await call(receiver.url)


async def test_receiver_that_does_not_answer_is_given_up(
    call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook, "TIMEOUT_S", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(CallbackFailed, match="no answer within"),
    ):
        await call(f"http://127.0.0.1:{listener.getsockname()[1]}/")


async def test_receiver_that_is_not_there_is_a_failure(call: Call) -> None:
    with pytest.raises(CallbackFailed):
        await call("http://127.0.0.1:9/")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0x7f.1"])
async def test_private_address_is_refused_after_resolution(
    receiver: Receiver, call: Call, host: str
) -> None:
    url = receiver.url.replace("127.0.0.1", host)
    with pytest.raises(
        CallbackFailed, match=r"^callbacks may not go to this address, it is not public$"
    ):
        await call(url, allow_private=False)
    assert receiver.told == []


async def test_name_that_resolves_to_another_address_the_second_time_gains_nothing(
    receiver: Receiver, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved: list[str] = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        resolved.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    url = receiver.url.replace("127.0.0.1", "hooks.example.org")
    with pytest.raises(
        CallbackFailed, match=r"^callbacks may not go to this address, it is not public$"
    ):
        await call(url, "*.example.org", allow_private=False)
    await call(url, "*.example.org", allow_private=True)
    assert resolved == ["hooks.example.org"] * 2
    assert len(receiver.told) == 1


async def test_rules_are_asked_again_before_each_call(receiver: Receiver, call: Call) -> None:
    with pytest.raises(CallbackUnwanted):
        await call(receiver.url, "example.org")
    assert receiver.told == []


@pytest.mark.parametrize(
    ("pattern", "url", "allowed"),
    [
        ("example.org", "https://example.org/hook?x=1", True),
        ("example.org", "http://EXAMPLE.org:8443", True),
        ("*.example.org", "https://a.example.org", True),
        ("*.example.org", "https://example.org", False),
        ("example.org", "https://example.org.evil.net", False),
        ("example.org", "https://evil.net/example.org", False),
        ("example.org", "https://evil.net#example.org", False),
        ("example.org", "https://example.org@evil.net", False),
        ("*", "https://user:secret@example.org", False),
        ("*", "ftp://example.org", False),
        ("*", "file:///etc/passwd", False),
        ("*", "//example.org", False),
        ("*", "https://", False),
        ("*", "https://example.org:0/", False),
        ("*", "https://example.org:99999/", False),
        ("*", "https://example.org/ x", False),
        ("*", "https://example.org/\nx", False),
        ("*", "https://example.org\\@evil.net", False),
        ("*", "https://[::1", False),
        ("*", "https://example.org/" + "x" * 2000, False),
    ],
)
def test_only_listed_hosts_may_be_called(pattern: str, url: str, allowed: bool) -> None:
    rules = CallbackRules((pattern,))
    if allowed:
        rules.check(url)
    else:
        with pytest.raises(CallbackRefused):
            rules.check(url)


def test_without_rules_none_may_be_called() -> None:
    with pytest.raises(CallbackRefused, match="callback_url is not allowed"):
        CallbackRules().check("https://example.org/")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1", True),
        ("127.0.0.1", False),
        ("0.0.0.0", False),  # noqa: S104
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("::1", False),
        ("::7f00:1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("::ffff:8.8.8.8", True),
        ("64:ff9b::a00:1", False),
        ("2002:a00:1::", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    assert is_public(address) is public
