"""Routes about the server and what it uses: health, metrics, tokens, services, clients."""

import asyncio

from aiohttp import hdrs, web

from job_orchestrator.common.errors import BadRequest
from job_orchestrator.common.messages.service import (
    Health,
    Identity,
    SignInCode,
    User,
    UserList,
)
from job_orchestrator.common.protocol.bearer import bearer_token
from job_orchestrator.common.protocol.tunnel import HEARTBEAT_S, MAX_MESSAGE_BYTES, SUBPROTOCOL
from job_orchestrator.common.web.answers import json_response, metrics_response
from job_orchestrator.server import __version__, keys
from job_orchestrator.server.model import ClientGrant
from job_orchestrator.server.web.parameters import PRINCIPAL, PauseRequest, json_body, sees_details


class NoWebSocket(BadRequest):
    """A request for a tunnel that is not one for a WebSocket."""

    def __init__(self) -> None:
        super().__init__(
            "This route is a WebSocket for jo-client. If jo-client has sent this request, a proxy"
            " has removed its header Upgrade; nginx passes it on with: proxy_http_version 1.1;"
            ' proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection "upgrade";'
        )


async def health(request: web.Request) -> web.Response:
    """Check that the server can work."""
    await request.app[keys.HEALTH]()
    return json_response(Health(version=__version__, status="healthy"))


async def metrics(request: web.Request) -> web.Response:
    """Return the metrics in the text format of Prometheus."""
    queries = request.app[keys.QUERIES]
    current = request.app[keys.METRICS]
    counts = await queries.store.lists.unended()
    current.set_gauges(
        counts,
        queries.services.values(),
        queries.clients,
        request.app[keys.EVENT_STREAMS].open_streams,
    )
    return await metrics_response(current.registry)


async def whoami(request: web.Request) -> web.Response:
    """Return the owner of the token."""
    principal = request[PRINCIPAL]
    limits = None
    if principal.user_id is not None:
        limits = await request.app[keys.QUERIES].limits_of(principal.user_id)
    identity = Identity(
        user_id=principal.user_id,
        admin=principal.is_admin,
        auth=principal.authenticated,
        limits=limits,
        name=principal.name,
    )
    return json_response(identity)


async def users(request: web.Request) -> web.Response:
    """List the users of trusted issuers."""
    known = await request.app[keys.QUERIES].store.identities.all()
    listed = [
        User(each.user_id, each.name, each.issuer, each.subject, each.groups) for each in known
    ]
    return json_response(UserList(listed))


async def sign_in_options(request: web.Request) -> web.Response:
    """Return the issuers at which people can sign in."""
    return json_response(await request.app[keys.AUTHENTICATION].sign_in.options())


async def sign_in(request: web.Request) -> web.Response:
    """Exchange the code of an issuer for a token."""
    code = await json_body(request, SignInCode)
    return json_response(await request.app[keys.AUTHENTICATION].sign_in.exchange(code))


async def services(request: web.Request) -> web.Response:
    """List the services."""
    details = sees_details(request)
    return json_response(await request.app[keys.QUERIES].all_services(details=details))


async def clients(request: web.Request) -> web.Response:
    """List the clients."""
    return json_response(request.app[keys.QUERIES].all_clients())


async def connect(request: web.Request) -> web.StreamResponse:
    """Register a client, and hold the tunnel that it has dialed."""
    if request.headers.get(hdrs.UPGRADE, "").lower() != "websocket":
        raise NoWebSocket
    tokens, revoked = request.app[keys.AUTHENTICATION], asyncio.Event()
    socket = web.WebSocketResponse(
        protocols=[SUBPROTOCOL],
        heartbeat=HEARTBEAT_S,
        max_msg_size=MAX_MESSAGE_BYTES,
        compress=False,
    )
    await socket.prepare(request)
    token = bearer_token(request.headers.get(hdrs.AUTHORIZATION))
    with tokens.in_use(token, revoked.set):
        grant = request[PRINCIPAL].grant or ClientGrant()
        await request.app[keys.REGISTRATIONS].serve(socket, grant, revoked)
    return socket


async def drain_client(request: web.Request) -> web.Response:
    """Give a client no more jobs."""
    return await _set_drained(request, drained=True)


async def resume_client(request: web.Request) -> web.Response:
    """Give a client jobs again."""
    return await _set_drained(request, drained=False)


async def forget_client(request: web.Request) -> web.Response:
    """Forget a registered client."""
    await request.app[keys.REGISTRATIONS].forget(request.match_info["name"])
    return json_response(request.app[keys.QUERIES].all_clients())


async def _set_drained(request: web.Request, *, drained: bool) -> web.Response:
    name = request.match_info["name"]
    await request.app[keys.REGISTRATIONS].drain(name, drained=drained)
    return json_response(request.app[keys.QUERIES].all_clients())


async def stats(request: web.Request) -> web.Response:
    """Return the statistics of the last hour."""
    return json_response(await request.app[keys.QUERIES].stats())


async def pauses(request: web.Request) -> web.Response:
    """List what is paused."""
    return json_response(request.app[keys.CONTROL].pauses())


async def pause(request: web.Request) -> web.Response:
    """Pause a service or a user."""
    wanted = await json_body(request, PauseRequest)
    control = request.app[keys.CONTROL]
    return json_response(await control.pause(service=_name(wanted), user_id=wanted.user_id))


async def resume(request: web.Request) -> web.Response:
    """Resume a service or a user."""
    wanted = await json_body(request, PauseRequest)
    control = request.app[keys.CONTROL]
    return json_response(await control.resume(service=_name(wanted), user_id=wanted.user_id))


def _name(wanted: PauseRequest) -> str | None:
    if wanted.service is None and wanted.user_id is None:
        raise BadRequest("Name a service or a user_id")
    return None if wanted.service is None else wanted.service.strip().lower()
