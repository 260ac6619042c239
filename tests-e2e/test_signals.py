"""Signals during the stop of a service."""

import asyncio
import signal

import aiohttp
import psutil

from harness import Portal, StartClient, StartServer, eventually

SCRIPT = "trap 'touch told' TERM; (trap '' TERM; exec setsid sleep 4711) & while :; do wait; done\n"


async def test_more_signals_cut_the_drain_short_and_nothing_else(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    client = await start_client(DRAIN_TIMEOUT="300s", KILL_GRACE="2s")
    portal = Portal((await start_server(client)).url, session)
    await portal.until(await portal.submit(SCRIPT), "Running")
    started = psutil.Process(client.pid).children(recursive=True)

    async def drains() -> bool:
        return "Stopping: 1 payloads have 300 s to end" in client.logged

    async def ends_its_scripts() -> bool:
        return await asyncio.to_thread(lambda: any((client.folder / "data").rglob("told")))

    client.send(signal.SIGTERM)
    await eventually(drains)
    client.send(signal.SIGTERM)
    await eventually(ends_its_scripts)
    client.send(signal.SIGTERM)
    assert await client.died() == 0
    assert "Traceback" not in client.logged
    assert started
    assert not [process for process in started if process.is_running()]


async def test_more_signals_do_not_break_off_how_the_server_stops(
    start_client: StartClient, start_server: StartServer, session: aiohttp.ClientSession
) -> None:
    client = await start_client()
    server = await start_server(client)
    portal = Portal(server.url, session)
    job = await portal.submit("sleep 4711\n")
    await portal.until(job, "Running")
    async with session.get(f"{server.url}/jobs/{job}/logs?follow=1") as following:
        server.send(signal.SIGTERM)
        await following.read()  # it is stopping
        server.send(signal.SIGTERM)
    assert await server.died() in (0, -signal.SIGTERM), "the last may have come when all was done"
    assert "Traceback" not in server.logged
