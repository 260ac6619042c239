"""Duration of a job with many small files as input and output."""

import statistics
import time
from pathlib import Path

from bench.content import text_block
from bench.floors import folders
from bench.http import Connection, Form
from bench.outcome import Outcome, Row
from bench.services import pair
from bench.sizes import Size

COPIES = 10.0
FILE_BYTES = 1000
PER_FOLDER = 100


async def measure(folder: Path, size: Size) -> Outcome:
    """Measure from POST to the ZIP, ``files_rounds`` times. The floor is ``cp -r`` of the files."""
    text = text_block()
    contents = {
        f"{number // PER_FOLDER}/{number}.txt": text[number * 7 : number * 7 + FILE_BYTES]
        for number in range(size.files)
    }
    form = Form.of({"user_id": "1", "service": "bench"}, {"run.sh": b"exit 0\n", **contents})
    folders.make(folder / "many", contents)
    jobs: list[float] = []
    copies: list[float] = []
    flushed: list[float] = []
    async with pair(folder) as services, Connection(services.server.url) as portal:
        for _ in range(size.files_rounds):
            copies.append(folders.copy_s(folder / "many", flushed=False))
            flushed.append(folders.copy_s(folder / "many", flushed=True))
            begun = time.perf_counter()
            await portal.result(await portal.submit(form))
            jobs.append(time.perf_counter() - begun)
    floor = statistics.median(copies)
    row = Row(
        f"a job with {size.files} small files in and out",
        statistics.median(jobs),
        "s",
        COPIES * floor,
        f"at most {COPIES:g} × the floor",
        floor=floor,
        floor_name="`cp -r`",
    )
    return Outcome([row], {"job_s": jobs, "copy_s": copies, "flushed_copy_s": flushed})
