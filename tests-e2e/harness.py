"""Real jo-server and jo-client processes for tests, and a portal that uses them."""

import asyncio
import contextlib
import os
import re
import signal
import sys
import zipfile
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import aiohttp

BIN = Path(sys.executable).parent
START_TIMEOUT_S = 120.0
END_TIMEOUT_S = 120.0
WAIT_TIMEOUT_S = 120.0
"""Bounds that only a failure reaches, also on a busy machine."""

WAIT_S = 30
"""Value of ``?wait=``: after it a request is repeated."""

FINAL = {"Completed", "Failed", "Invalid", "Killed"}


def files_named(name: str, folder: Path) -> list[Path]:
    """Find files by name in a folder that a service is changing, where rglob fails."""
    return [Path(found, name) for found, _, files in os.walk(folder) if name in files]


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait for a condition that sends no event, such as the start of a process."""
    async with asyncio.timeout(WAIT_TIMEOUT_S):
        while not await condition():  # noqa: ASYNC110 (there is no event)
            await asyncio.sleep(0.02)


def content(path: Path, name: str) -> bytes:
    """Read a file of a ZIP archive."""
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


class Service:
    """One jo-server or jo-client process on a free port, with its log.

    ``programs`` is the folder of the commands: those of this environment, or of another version.
    """

    def __init__(
        self, name: str, folder: Path, settings: Mapping[str, str], programs: Path = BIN
    ) -> None:
        self._programs = programs
        self.name = name
        self.folder = folder
        self.settings = dict(settings)
        self.log: deque[str] = deque(maxlen=5000)
        self.url = ""
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def start(self) -> "Service":
        """Start the process. A restart uses the same port and folders."""
        port = self.url.rpartition(":")[2] or "0"
        inherited = {k: v for k, v in os.environ.items() if k.startswith("COV") or k == "LANG"}
        self._process = await asyncio.create_subprocess_exec(
            self._programs / self.name,
            cwd=self.folder,
            env={
                "PATH": f"{self._programs}:{os.environ['PATH']}",
                "HOST": "127.0.0.1",
                "PORT": port,
                **inherited,
                **self.settings,
            },
            stdin=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
        listening = asyncio.get_running_loop().create_future()
        self._reader = asyncio.create_task(self._read(self._process, listening))
        self.url = await asyncio.wait_for(listening, START_TIMEOUT_S)
        return self

    @property
    def pid(self) -> int:
        """Id of the process."""
        assert self._process is not None
        return self._process.pid

    @property
    def logged(self) -> str:
        """The log so far."""
        return "".join(self.log)

    def send_signal(self, number: int) -> None:
        """Send a signal and return immediately."""
        assert self._process is not None
        self._process.send_signal(number)

    async def wait(self) -> int:
        """Wait for the exit without a time limit, and return the exit status."""
        if self._process is None:
            return 0
        status = await self._process.wait()
        if self._reader is not None:
            await asyncio.wait({self._reader})
            self._reader.exception()
        return status

    async def died(self) -> int:
        """Wait for the exit without sending a signal. Return the exit status, -9 after SIGKILL."""
        assert self._process is not None
        return await self._exit(self._process)

    async def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal if the process still runs, and return the exit status."""
        if (process := self._process) is None:
            return 0
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(number)
        try:
            return await self._exit(process)
        except TimeoutError:
            process.kill()
            await self._exit(process)
            raise AssertionError(f"{self.name} did not end:\n{self.logged[-3000:]}") from None

    async def _exit(self, process: asyncio.subprocess.Process) -> int:
        """Wait for the exit. A process that has not exited in time can still be ended later."""
        status = await asyncio.wait_for(process.wait(), END_TIMEOUT_S)
        if self._process is process:
            self._process = None
        if self._reader is not None:
            await asyncio.wait({self._reader})
        return status

    async def _read(
        self, process: asyncio.subprocess.Process, listening: "asyncio.Future[str]"
    ) -> None:
        assert process.stderr is not None
        async for line in process.stderr:
            text = line.decode(errors="replace")
            self.log.append(text)
            found = re.search(r"(?:listening on|Connected to) (\S+)", text)
            if found and not listening.done():
                listening.set_result(found[1])
        if not listening.done():
            listening.set_exception(AssertionError(f"{self.name} did not start:\n{self.logged}"))


class Portal:
    """A portal: submits jobs, waits for them and fetches results through the API."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self.url = url
        self._session = session

    async def submit(
        self,
        script: str,
        files: Mapping[str, bytes] | None = None,
        *,
        user: int = 1,
        service: str = "example",
        **fields: str,
    ) -> int:
        """Submit a job, with further fields of the form, and return its id."""
        values = {"user_id": str(user), "service": service, **fields}
        form = aiohttp.FormData(values, quote_fields=False)
        for name, content in {"run.sh": script.encode(), **(files or {})}.items():
            form.add_field("file", BytesIO(content), filename=name)
        async with self._session.post(f"{self.url}/upload", data=form) as response:
            answer = await response.json()
            assert response.status == 201, answer
            return int(answer["id"])

    async def state(self, job_id: int, wait: int = 0) -> dict[str, Any]:
        """Return the JSON of a job. A Completed job is answered with its ZIP: make up its state."""
        url = f"{self.url}/download/{job_id}"
        async with self._session.get(url, params={"wait": wait}) as response:
            if response.content_type == "application/zip":
                return {"id": job_id, "status": "Completed", "message": ""}
            return dict(await response.json())

    async def until(self, job_id: int, *wanted: str) -> dict[str, Any]:
        """Wait until the status of a job is one of ``wanted``, and return its state."""
        async with asyncio.timeout(WAIT_TIMEOUT_S):
            while True:
                final = FINAL.issuperset(wanted)
                state = await self.state(job_id, wait=WAIT_S if final else 0)
                if state["status"] in wanted:
                    return state
                assert state["status"] not in FINAL, state
                # The original answers immediately, also with ``wait``.
                await asyncio.sleep(0.02)

    async def end_of(self, job_id: int) -> dict[str, Any]:
        """Wait until a job has ended, and return its state."""
        return await self.until(job_id, *FINAL)

    async def results(self, job_id: int, route: str = "download") -> zipfile.ZipFile:
        """Return the results of a job, or its partial results with ``download_partial``."""
        async with self._session.get(f"{self.url}/{route}/{job_id}") as response:
            body = await response.read()
            assert response.status == 200, body
            assert response.content_type == "application/zip", body
            return zipfile.ZipFile(BytesIO(body))

    async def terminate(self, job_id: int) -> tuple[int, dict[str, Any]]:
        """Request the termination of a job. Return the HTTP status and the JSON of the response."""
        async with self._session.post(f"{self.url}/terminate/{job_id}") as response:
            return response.status, dict(await response.json())


StartClient = Callable[..., Awaitable[Service]]
StartServer = Callable[..., Awaitable[Service]]
