"""Delivery of callbacks to untrusted URLs: rules, signatures and hostile receivers."""

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

from job_orchestrator.server.callbacks.delivery import (
    TIMEOUT_S,
    CallbackFailed,
    CallbackRejected,
    Message,
    WebhookSender,
    signature,
)
from job_orchestrator.server.callbacks.rules import CallbackRefused, check_url, is_public
from job_orchestrator.server.model import CallbackRules
from job_orchestrator.server.settings.kinds import SigningKey

MESSAGE = Message("job_1", b'{"id":1}')
KEY = b"0123456789abcdef"
Send = Callable[..., Any]


class Receiver:
    """A receiver that answers with ``status`` and keeps the callbacks."""

    def __init__(self) -> None:
        self.status = 200
        self.headers: dict[str, str] = {}
        self.received: list[tuple[dict[str, str], bytes]] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.received.append((dict(request.headers), await request.read()))
        return web.Response(status=self.status, headers=self.headers)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{tail:.*}", receiver.handle)
    async with TestServer(app) as server:
        receiver.url = str(server.make_url("/hook?of=7"))
        yield receiver


@pytest.fixture
async def send() -> AsyncIterator[Send]:
    """Return a function that delivers a message to a URL."""
    async with contextlib.AsyncExitStack() as stack:

        async def send(
            url: str, pattern: str = "*", allow_private: bool = True, timeout_s: float = TIMEOUT_S
        ) -> None:
            rules = CallbackRules((pattern,), allow_private)
            sender = WebhookSender(rules, KEY, lambda: 1_800_000_000.5, timeout_s=timeout_s)
            stack.push_async_callback(sender.close)
            await sender.send(url, MESSAGE)

        yield send


async def test_send_message_is_signed_as_standard_webhooks(receiver: Receiver, send: Send) -> None:
    await send(receiver.url)
    ((headers, body),) = receiver.received
    assert body == MESSAGE.body
    assert headers["Content-Type"] == "application/json"
    assert headers["webhook-id"] == MESSAGE.id
    assert headers["webhook-timestamp"] == "1800000000"
    digest = hmac.new(KEY, b'job_1.1800000000.{"id":1}', hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()
    assert "Authorization" not in headers


def test_signature_equals_that_of_the_specification() -> None:
    # The example of https://github.com/standard-webhooks/standard-webhooks/tree/main/libraries
    key = SigningKey().parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    message = Message("msg_p5jXN8AQM9LWM0D4loKWxJek", b'{"test": 2432232314}')
    assert signature(key, message, 1614265330) == (
        "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    )


@pytest.mark.parametrize("status", [302, 400, 404, 500, 503])
async def test_send_receiver_answers_an_error_fails(
    receiver: Receiver, send: Send, status: int
) -> None:
    receiver.status = status
    receiver.headers = {"Location": receiver.url}
    with pytest.raises(CallbackFailed, match=str(status)):
        await send(receiver.url)
    assert len(receiver.received) == 1, "a redirect is not followed"


async def test_send_receiver_answers_410_is_rejected(receiver: Receiver, send: Send) -> None:
    receiver.status = 410
    with pytest.raises(CallbackRejected):
        await send(receiver.url)


async def test_send_receiver_does_not_answer_fails(send: Send) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        pytest.raises(CallbackFailed, match=r"no answer within 0\.2 s"),
    ):
        await send(f"http://127.0.0.1:{listener.getsockname()[1]}/", timeout_s=0.2)


async def test_send_receiver_is_unreachable_fails(send: Send) -> None:
    with pytest.raises(CallbackFailed):
        await send("http://127.0.0.1:9/")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "0x7f.1"])
async def test_send_name_resolves_to_a_private_address_fails(
    receiver: Receiver, send: Send, host: str
) -> None:
    url = receiver.url.replace("127.0.0.1", host)
    with pytest.raises(
        CallbackFailed, match=r"^callbacks may not go to this address, it is not public$"
    ):
        await send(url, allow_private=False)
    assert receiver.received == []


async def test_send_name_resolves_to_another_address_the_second_time_is_checked_again(
    receiver: Receiver, send: Send, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolved: list[str] = []

    def resolve(host: str, port: int, **_: Any) -> list[Any]:
        resolved.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    # A name server under control of the receiver cannot be had otherwise.
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    url = receiver.url.replace("127.0.0.1", "hooks.example.org")
    with pytest.raises(
        CallbackFailed, match=r"^callbacks may not go to this address, it is not public$"
    ):
        await send(url, "*.example.org", allow_private=False)
    await send(url, "*.example.org", allow_private=True)
    assert resolved == ["hooks.example.org"] * 2
    assert len(receiver.received) == 1


async def test_send_host_is_no_longer_allowed_is_rejected(receiver: Receiver, send: Send) -> None:
    with pytest.raises(CallbackRejected):
        await send(receiver.url, "example.org")
    assert receiver.received == []


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
def test_check_url_allows_listed_hosts_only(pattern: str, url: str, allowed: bool) -> None:
    rules = CallbackRules((pattern,))
    if allowed:
        check_url(url, rules)
    else:
        with pytest.raises(CallbackRefused):
            check_url(url, rules)


def test_check_url_without_patterns_refuses_all() -> None:
    with pytest.raises(CallbackRefused, match="callback_url is not allowed"):
        check_url("https://example.org/", CallbackRules())


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
def test_is_public_accepts_global_unicast_addresses_only(address: str, public: bool) -> None:
    assert is_public(address) is public
