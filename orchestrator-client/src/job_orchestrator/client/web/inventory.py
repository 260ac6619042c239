"""Route that lists the payloads of this client."""

from aiohttp import web

from job_orchestrator.client import keys
from job_orchestrator.common.messages.payloads import InventoryEntry
from job_orchestrator.common.web.answers import json_response


async def inventory(request: web.Request) -> web.Response:
    """List all payloads that this client has, whichever server has submitted them."""
    rows = await request.app[keys.STORE].kept()
    return json_response([InventoryEntry(row.id, row.key, row.reported_status) for row in rows])
