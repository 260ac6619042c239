"""Transfer rate of a large text file in each hop, in MB/s (millions of bytes)."""

import asyncio
import shutil
import statistics
import time
from dataclasses import asdict
from pathlib import Path

from isal import isal_zlib

from bench.content import text_block
from bench.floors.copying import sendfile_s, socket_to_disk_s
from bench.large_job import RoundTrip, run_round_trip
from bench.outcome import Outcome, Row
from bench.services import pair
from bench.sizes import Size

OF_COPY = 0.7
COPIES = 4.0
MB = 1e6
TO_DISK = "socket to disk, flushed"


async def measure(folder: Path, size: Size) -> Outcome:
    """Transfer ``transfer_bytes`` in both directions. Each round measures its floors."""
    block = text_block()
    total = size.transfer_bytes
    trips: list[RoundTrip] = []
    copies: list[float] = []
    sends: list[float] = []
    deflates: list[float] = []
    for number in range(size.transfer_rounds):
        here = folder / str(number)
        limit = {"MAX_UPLOAD_SIZE": str(2 * total)}
        async with pair(here, server=limit, client=limit) as services:
            copies.append(await asyncio.to_thread(socket_to_disk_s, here, block, total))
            deflates.append(_deflate_s(block) / len(block) * total)
            trips.append(await run_round_trip(services, block, total))
            sends.append(await _send_s(here, block, trips[-1].zip_bytes))
        shutil.rmtree(here)
    copy_s = statistics.median(copies)
    copy = total / copy_s / MB
    deflate = total / statistics.median(deflates) / MB
    zip_bytes = trips[-1].zip_bytes
    send = zip_bytes / statistics.median(sends) / MB
    rows = [
        _rate("upload", trips, "upload_s", total, copy, TO_DISK, OF_COPY),
        _rate("server to client", trips, "transfer_s", total, copy, TO_DISK),
        _rate("pack", trips, "pack_s", total, deflate, "deflating it in memory, one thread"),
        _rate("fetch", trips, "fetch_s", zip_bytes, copy, TO_DISK),
        _rate("download", trips, "download_s", zip_bytes, send, "sendfile", OF_COPY),
        Row(
            f"{total / MB:.0f} MB of text, there and back",
            statistics.median(each.whole_s for each in trips),
            "s",
            COPIES * copy_s,
            f"less than {COPIES:g} × the raw copy",
            floor=copy_s,
            floor_name=TO_DISK,
        ),
    ]
    return Outcome(rows, {"trips": [asdict(each) for each in trips], "copy_s": copies})


def _rate(
    what: str,
    trips: list[RoundTrip],
    hop: str,
    size: int,
    floor: float,
    floor_name: str,
    of_floor: float | None = None,
) -> Row:
    """Create the row of a hop that transfers ``size`` bytes."""
    return Row(
        what,
        size / statistics.median(getattr(each, hop) for each in trips) / MB,
        "MB/s",
        of_floor * floor if of_floor else None,
        f"at least {of_floor:g} × the floor" if of_floor else "",
        at_most=False,
        floor=floor,
        floor_name=floor_name,
    )


async def _send_s(folder: Path, block: bytes, size: int) -> float:
    """Return the seconds that sendfile takes for a file of the results' size."""
    file = folder / "sent"
    with file.open("wb") as target:
        for _ in range(size // len(block) + 1):
            target.write(block)
    return await asyncio.to_thread(sendfile_s, file, size)


def _deflate_s(block: bytes) -> float:
    compressor = isal_zlib.compressobj(2)
    begun = time.perf_counter()
    compressor.compress(block)
    compressor.flush()
    return time.perf_counter() - begun
