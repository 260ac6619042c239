"""GET and DELETE /retrieve/{id}, GET /retrieve_partial/{id}."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from aiohttp import hdrs, web

from orchestrator_client import keys
from orchestrator_client.errors import PayloadNotEnded, ResultsGone
from orchestrator_client.payloads import has_ended
from orchestrator_client.web.answers import payload_id, payload_of
from orchestrator_client.web.submit import KEY_HEADER
from orchestrator_common.status import PayloadStatus
from orchestrator_common.threads import in_thread
from orchestrator_common.web import json_response

ZIP = "application/zip"
BLOCK_BYTES = 1 << 20


async def retrieve(request: web.Request) -> web.StreamResponse:
    """Give the results of a payload, or its state.

    ---
    summary: Results of a payload, or its state
    description: >-
      A ZIP once it is Completed, JSON in any other state. The Idempotency-Key of its submit is
      echoed.
    tags: [payloads]
    parameters:
      - {name: id, in: path, required: true, schema: {type: integer}}
    responses:
      "200":
        description: The results or the state
        content:
          application/zip:
            schema: {type: string, format: binary}
          application/json:
            schema: {$ref: "#/components/schemas/Payload"}
      "404":
        description: There is no such payload, or its results were lost
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Payload"}
    """
    row = await request.app[keys.STORE].get(payload_id(request))
    headers = {KEY_HEADER: row.key} if row.key else {}
    if row.status is not PayloadStatus.COMPLETED:
        return json_response(payload_of(request, row), headers=headers)
    results = request.app[keys.WORKSPACES].of(row.uuid).results
    if not await in_thread(results.exists):
        raise ResultsGone(f"The results of payload {row.id} are gone")
    return _file(results, headers)


async def retrieve_partial(request: web.Request) -> web.StreamResponse:
    """Give what there is of a payload's output, whatever its state.

    ---
    summary: Output of a payload so far
    tags: [payloads]
    parameters:
      - {name: id, in: path, required: true, schema: {type: integer}}
    responses:
      "200":
        description: The work folder as it is now, or as it was at the end
        content:
          application/zip:
            schema: {type: string, format: binary}
      "404":
        description: There is no such payload, or its files were removed
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Payload"}
      "507":
        description: The disk is too full to pack it
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Payload"}
    """
    row = await request.app[keys.STORE].get(payload_id(request))
    workspace = request.app[keys.WORKSPACES].of(row.uuid)
    if row.status is PayloadStatus.CLEANED:
        raise ResultsGone(f"The files of payload {row.id} were removed")
    if await in_thread(workspace.results.exists):
        return _file(workspace.results, {})
    file = await request.app[keys.PACKER].pack_partial(workspace)
    try:
        return await _send(request, file)
    finally:
        await in_thread(file.close)


def _file(results: Path, headers: Mapping[str, str]) -> web.FileResponse:
    return web.FileResponse(
        results, chunk_size=BLOCK_BYTES, headers={**headers, hdrs.CONTENT_TYPE: ZIP}
    )


async def _send(request: web.Request, file: IO[bytes]) -> web.StreamResponse:
    response = web.StreamResponse()
    response.content_type = ZIP
    response.content_length = os.fstat(file.fileno()).st_size
    await response.prepare(request)
    while block := await in_thread(file.read, BLOCK_BYTES):
        await response.write(block)
    await response.write_eof()
    return response


async def forget(request: web.Request) -> web.Response:
    """Remove the files of a payload whose results the server has.

    ---
    summary: Remove the files of a payload that has ended
    tags: [payloads]
    parameters:
      - {name: id, in: path, required: true, schema: {type: integer}}
    responses:
      "200":
        description: They are removed
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Payload"}
      "404":
        description: There is no such payload
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Payload"}
      "409":
        description: It has not ended
        content:
          application/json:
            schema: {$ref: "#/components/schemas/Payload"}
    """
    store = request.app[keys.STORE]
    row = await store.get(payload_id(request))
    if not has_ended(row):
        raise PayloadNotEnded(f"Payload {row.id} is {row.status}; end it first")
    await request.app[keys.CLEANER].clean(row)
    return json_response(payload_of(request, await store.get(row.id)))
