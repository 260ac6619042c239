"""GET /whoami."""

from aiohttp import web

from job_orchestrator.common.messages import Identity
from job_orchestrator.common.web.answers import json_response
from job_orchestrator.server import keys


async def whoami(request: web.Request) -> web.Response:
    """Tell whose the token is.

    ---
    summary: Whose token this is
    description: Without tokens on this server everybody is an administrator, and auth is false.
    tags: [service]
    responses:
      "200":
        description: The user, or an administrator
        content:
          application/json:
            schema: {$ref: "#/components/schemas/WhoAmI"}
    """
    who = request[keys.PRINCIPAL]
    return json_response(Identity(user_id=who.user_id, admin=who.is_admin, auth=who.authenticated))
