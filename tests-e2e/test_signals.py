"""Signals to a service that is already stopping, such as a repeated Ctrl-C."""

import asyncio
import signal

import aiohttp
import psutil

from harness import Portal, StartClient, StartServer, eventually, files_named

SCRIPT = (
    "trap 'touch signalled' TERM; (trap '' TERM; exec setsid sleep 4711) & while :; do wait; done\n"
)


async def test_repeated_signals_shorten_only_the_drain_of_a_client(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    client = await start_client(DRAIN_TIMEOUT="300s", KILL_GRACE="2s")
    portal = Portal((await start_server(client)).url, session)
    await portal.until(await portal.submit(SCRIPT), "Running")
    started = psutil.Process(client.pid).children(recursive=True)

    async def drains() -> bool:
        return "Stopping: 1 payloads have 300 s to end" in client.logged

    async def ends_its_scripts() -> bool:
        return await asyncio.to_thread(
            lambda: bool(files_named("signalled", client.folder / "data"))
        )

    client.send_signal(signal.SIGTERM)
    await eventually(drains)
    client.send_signal(signal.SIGTERM)
    await eventually(ends_its_scripts)
    client.send_signal(signal.SIGTERM)
    assert await client.died() == 0
    assert "Traceback" not in client.logged
    assert started
    assert not [process for process in started if process.is_running()]


async def test_repeated_signals_do_not_interrupt_the_shutdown_of_a_server(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    client = await start_client()
    server = await start_server(client)
    portal = Portal(server.url, session)
    job = await portal.submit("sleep 4711\n")
    await portal.until(job, "Running")
    async with session.get(f"{server.url}/jobs/{job}/logs?follow=1") as following:
        server.send_signal(signal.SIGTERM)
        await following.read()  # ends when the server begins to stop
        server.send_signal(signal.SIGTERM)
    assert await server.died() in (0, -signal.SIGTERM), (
        "the last signal may arrive after the shutdown"
    )
    assert "Traceback" not in server.logged
