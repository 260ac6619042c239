"""Route to one file of a job's results: shown by browsers, in ranges, in constant memory.

A result may contain any HTML or SVG. Its content security policy gives the page an origin that
differs from the dashboard's, and lets no script run: a result can't act for the user who opens it.
"""

from collections.abc import AsyncGenerator, Mapping
from pathlib import PurePosixPath
from urllib.parse import quote

from aiohttp import hdrs, web

from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.web.streaming import send, started
from job_orchestrator.server import keys
from job_orchestrator.server.errors import TooManyReaders
from job_orchestrator.server.files.zip_reader import EntryReader, NotAZip
from job_orchestrator.server.jobs.results import OpenFile
from job_orchestrator.server.model import MAX_USER_ID
from job_orchestrator.server.web.conditions import Version, failed_condition
from job_orchestrator.server.web.parameters import job_id

BLOCK_BYTES = 1 << 18
SKIP_BYTES = 64 << 20
"""Bytes that are skipped in one go: a thread is occupied for a fraction of a second."""

MAX_SKIP_BYTES = 256 << 20
"""Start of a range up to which it is served: compressed data before it is decompressed in vain.
A later range is ignored, as RFC 9110 allows, and the file is sent from its beginning."""

MAX_READERS = 16
MAX_READERS_OF_A_USER = 4
"""Concurrent readers of files. Each of them decompresses, which takes a CPU."""

_ALL = MAX_USER_ID + 1
"""Key of all readers together: no user has this number."""

TEXT = "text/plain; charset=utf-8"
CONTENT_TYPES: Mapping[str, str] = {
    **dict.fromkeys((".txt", ".log", ".out", ".err", ".sh", ".py", ".md", ".toml", ".yaml"), TEXT),
    **dict.fromkeys((".yml", ".cfg", ".ini", ".fasta", ".pdb", ".cif", ".mol2", ".sdf"), TEXT),
    ".csv": "text/csv; charset=utf-8",
    ".tsv": "text/tab-separated-values; charset=utf-8",
    ".json": "application/json",
    ".html": "text/html; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".pdf": "application/pdf",
}
"""Files that browsers show, by suffix; they save all others. Not those of the system's table, which
differs from machine to machine."""

POLICY = "sandbox; default-src 'none'; img-src 'self' data:; style-src 'unsafe-inline'"


async def result_file(request: web.Request) -> web.StreamResponse:
    """Return one file of the results, or a range of it."""
    job = await request.app[keys.QUERIES].store.get(job_id(request))
    path = request.match_info["path"]
    readers = request.app[keys.RESULTS].readers
    with (
        readers.slot(MAX_READERS, _ALL, _too_many),
        readers.slot(MAX_READERS_OF_A_USER, job.user_id, _too_many),
    ):
        file = await request.app[keys.RESULTS].open_file(job, path)
        return await _send(request, path, file)


def _too_many() -> TooManyReaders:
    return TooManyReaders("Too many files of results are being read; try again in a moment")


async def _send(request: web.Request, path: str, file: OpenFile) -> web.StreamResponse:
    version = Version(file.modified_ns, file.size)
    wanted = version.range_of(request)
    if wanted and wanted.start > MAX_SKIP_BYTES:
        wanted = None
    refusal = failed_condition(request, version)
    headers = {**version.headers, **_description(path), hdrs.ACCEPT_RANGES: "bytes"}
    if refusal is None and wanted is not None and not wanted:
        refusal = 416
        headers[hdrs.CONTENT_RANGE] = f"bytes */{file.size}"
    if refusal is not None:
        await in_thread(file.content.close)
        return web.Response(status=refusal, headers=headers)
    sent = range(file.size) if wanted is None else wanted
    response = web.StreamResponse(status=200 if wanted is None else 206, headers=headers)
    response.content_length = len(sent)
    if wanted is not None:
        response.headers[hdrs.CONTENT_RANGE] = f"bytes {sent.start}-{sent.stop - 1}/{file.size}"
    return await send(request, response, await started(_blocks(file.content, sent)))


def _description(path: str) -> dict[str, str]:
    """Return the headers that tell a browser what to do with a file."""
    name = PurePosixPath(path).name
    content_type = CONTENT_TYPES.get(PurePosixPath(name).suffix.lower())
    shown = "attachment" if content_type is None else "inline"
    return {
        hdrs.CONTENT_TYPE: content_type or "application/octet-stream",
        hdrs.CONTENT_DISPOSITION: f"{shown}; filename*=UTF-8''{quote(name, safe='')}",
        "Content-Security-Policy": POLICY,
        "X-Content-Type-Options": "nosniff",
    }


async def _blocks(content: EntryReader, sent: range) -> AsyncGenerator[bytes, None]:
    """Yield a range of a file, and close it. The first block is empty."""
    try:
        for start in range(0, sent.start, SKIP_BYTES):
            await in_thread(content.skip, min(SKIP_BYTES, sent.start - start))
        yield b""
        left = len(sent)
        while left:
            block = await in_thread(content.read, min(left, BLOCK_BYTES))
            if not block:
                raise NotAZip("it is shorter than its directory says")
            left -= len(block)
            yield block
    finally:
        await in_thread(content.close)
