"""Error middleware: one response for each error, never within another response."""

from collections.abc import AsyncIterator

import pytest
from aiohttp import ClientPayloadError, web
from aiohttp.test_utils import TestClient, TestServer

from job_orchestrator.common.errors import DomainError, TryLater
from job_orchestrator.common.web.errors import error_middleware

Visitor = TestClient[web.Request, web.Application]


@pytest.fixture
async def visitor() -> AsyncIterator[Visitor]:
    """Session with a service whose handlers all fail."""

    def body(_: web.Request | None, error: Exception | None, message: str) -> bytes:
        return message.encode()

    async def late(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.content_length = 1000
        await response.prepare(request)
        await response.write(b"a beginning")
        raise LookupError

    async def busy(_: web.Request) -> web.StreamResponse:
        raise TryLater("not now")

    async def unknown(_: web.Request) -> web.StreamResponse:
        raise DomainError("no idea")

    app = web.Application(middlewares=[error_middleware({}, body)])
    app.add_routes([web.get(f"/{each.__name__}", each) for each in (late, busy, unknown)])
    async with TestClient(TestServer(app)) as visitor:
        yield visitor


async def test_error_after_the_response_has_started_closes_the_connection(visitor: Visitor) -> None:
    async with visitor.get("/late") as response:
        with pytest.raises(ClientPayloadError):
            await response.read()


async def test_domain_error_has_the_status_of_its_class_and_500_by_default(
    visitor: Visitor,
) -> None:
    async with visitor.get("/busy") as response:
        assert (response.status, response.headers["Retry-After"]) == (503, "5")
        assert await response.text() == "not now\n"
    async with visitor.get("/unknown") as response:
        assert (response.status, await response.text()) == (500, "no idea\n")
