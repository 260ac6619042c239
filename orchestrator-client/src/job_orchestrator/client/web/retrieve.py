"""Routes to fetch the results of payloads, and to acknowledge them."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from aiohttp import hdrs, web

from job_orchestrator.client import keys
from job_orchestrator.client.errors import PayloadNotEnded, ResultsGone
from job_orchestrator.client.model import PayloadRow
from job_orchestrator.client.web.answers import payload_id, payload_id_of, payload_of
from job_orchestrator.common.errors import BadRequest
from job_orchestrator.common.messages.payloads import AcknowledgedPayloads
from job_orchestrator.common.protocol.digests import repr_digest
from job_orchestrator.common.protocol.headers import IDEMPOTENCY_KEY, REPR_DIGEST, RUN_SECONDS
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import PayloadStatus
from job_orchestrator.common.storage.regular_file import open_regular_file
from job_orchestrator.common.storage.small_file import read_if_small
from job_orchestrator.common.web.answers import json_response

ZIP = "application/zip"
BLOCK_BYTES = 1 << 20
MAX_DISCARDED = 1000


async def retrieve(request: web.Request) -> web.StreamResponse:
    """Return the results of a completed payload, or the state of any other."""
    row = await request.app[keys.STORE].get(payload_id(request))
    headers = {IDEMPOTENCY_KEY: row.key} if row.key else {}
    if row.status is not PayloadStatus.COMPLETED:
        return json_response(payload_of(request, row), headers=headers)
    reach(Point.CLIENT_BEFORE_RESULTS)
    packed = await _packed(request, row, headers)
    if packed is None:
        raise ResultsGone(f"The results of payload {row.id} are missing from the client's storage")
    return packed


async def retrieve_partial(request: web.Request) -> web.StreamResponse:
    """Return the output that a payload has so far, in any state."""
    row = await request.app[keys.STORE].get(payload_id(request))
    if row.status is PayloadStatus.CLEANED:
        raise ResultsGone(f"The files of payload {row.id} were removed")
    packed = await _packed(request, row, {})
    if packed is not None:
        return packed
    workspace = request.app[keys.WORKSPACES].of(row.uuid)
    async with request.app[keys.PARTIAL_RESULTS].packed(row.id, workspace) as (file, sha256):
        headers = {hdrs.CONTENT_TYPE: ZIP, REPR_DIGEST: repr_digest(sha256)}
        return await _send(request, file, headers)


async def _packed(
    request: web.Request, row: PayloadRow, headers: Mapping[str, str]
) -> web.StreamResponse | None:
    """Return the packed results and their digest, None if there are none."""
    headers = {**headers, hdrs.CONTENT_TYPE: ZIP}
    if row.run_s is not None:
        headers[RUN_SECONDS] = repr(row.run_s)
    if row.results_sha256 is not None:
        headers[REPR_DIGEST] = repr_digest(row.results_sha256)
    kept = request.app[keys.KEPT_RESULTS].get(row.uuid)
    if kept is not None:
        return web.Response(body=kept, headers=headers)
    workspace = request.app[keys.WORKSPACES].of(row.uuid)
    try:
        small = await in_thread(read_if_small, workspace.results)
    except FileNotFoundError:
        return None
    if small is not None:
        return web.Response(body=small.content, headers=headers)
    if _is_socket(request):
        return web.FileResponse(workspace.results, chunk_size=BLOCK_BYTES, headers=headers)
    try:
        file = await in_thread(_open, workspace.results)
    except FileNotFoundError:
        return None
    with file:
        return await _send(request, file, headers)


def _open(path: Path) -> IO[bytes]:
    return open(open_regular_file(path), "rb")  # noqa: PTH123


def _is_socket(request: web.Request) -> bool:
    """Return whether the connection has a socket, so that the system can send a file itself.

    A stream of a tunnel has none.
    """
    transport = request.transport
    return transport is not None and transport.get_extra_info("socket") is not None


async def _send(
    request: web.Request, file: IO[bytes], headers: Mapping[str, str]
) -> web.StreamResponse:
    response = web.StreamResponse(headers=headers)
    response.content_length = os.fstat(file.fileno()).st_size
    await response.prepare(request)
    while request.method != hdrs.METH_HEAD and (block := await in_thread(file.read, BLOCK_BYTES)):
        await response.write(block)
    await response.write_eof()
    return response


async def forget(request: web.Request) -> web.Response:
    """Remove the files of a payload whose results are stored on the server."""
    store = request.app[keys.STORE]
    row = await store.get(payload_id(request))
    if not row.status.has_ended:
        raise PayloadNotEnded(f"Payload {row.id} is {row.status}; terminate it first")
    await request.app[keys.RETENTION].clean([row.id])
    return json_response(payload_of(request, await store.get(row.id)))


async def discard(request: web.Request) -> web.Response:
    """Remove the files of several payloads whose results are stored on the server."""
    ids = [payload_id_of(text) for text in request.query.get("ids", "").split(",")]
    if len(ids) > MAX_DISCARDED:
        raise BadRequest(
            f"{len(ids)} ids are too many for one request; at most {MAX_DISCARDED} are allowed"
        )
    return json_response(AcknowledgedPayloads(await request.app[keys.RETENTION].clean(ids)))
