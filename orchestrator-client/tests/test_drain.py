"""Drain: the client gives its payloads back in order, and still answers requests."""

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace
from typing import Any

from job_orchestrator.client import keys
from running_client import Client, StartClient


async def states_until_drained(client: Client) -> list[tuple[int, str]]:
    """Drain the client; return the states that the event stream reports.

    As a server does, fetches the results of ended payloads, and asks for payloads given back.
    """
    reported = []
    async with asyncio.timeout(60), client.events() as events, aclosing(events):  # type: ignore[type-var]
        assert (await anext(events)).kind == "load"
        drained = asyncio.create_task(client.app[keys.DRAIN]())
        drained.add_done_callback(lambda _: client.app[keys.EVENTS].close())
        async for event in events:
            data: dict[str, Any] = json.loads(event.data)
            if event.kind == "load":
                assert data["draining"] is True
                assert (await client.post("exit 0\n"))[0] == 503
                continue
            reported.append((data["id"], data["status"]))
            await client.get(data["id"])
            async with client.http.delete(f"/retrieve/{data['id']}"):
                pass
        await drained
    return reported


async def test_trap_22_draining_client_lets_payloads_end_and_takes_none(
    start_client: StartClient,
) -> None:
    client = await start_client(DRAIN_TIMEOUT="20s")
    payload = await client.submit("touch up; until [ -e go ]; do sleep 0.01; done\n", key="a.1")
    await client.eventually(lambda: any(client.data.glob("*/work/up")))
    (up,) = client.data.glob("*/work/up")
    drained = asyncio.create_task(states_until_drained(client))
    await client.eventually(lambda: client.app[keys.LOAD].reading.draining)
    status, refused = await client.post("exit 0\n", key="a.2")
    assert (status, refused["id"]) == (503, 0)
    # A repeat of an earlier submit is answered: the payload runs here.
    status, repeated = await client.post("exit 0\n", key="a.1")
    assert (status, repeated["id"]) == (200, payload)
    (up.parent / "go").touch()
    assert (payload, "Completed") in await drained


async def test_trap_22_payload_that_does_not_end_in_time_is_ended_and_given_back(
    start_client: StartClient,
) -> None:
    client = await start_client(SLOTS="1", DRAIN_TIMEOUT="0.2s", KILL_GRACE="0.1s")
    running = await client.submit("touch up; (setsid sleep 1021 &); sleep 1021\n")
    waiting = await client.submit("touch ran\n")
    await client.eventually(lambda: any(client.data.glob("*/work/up")))
    assert await states_until_drained(client) == [(waiting, "Cleaned"), (running, "Cleaned")]
    assert await asyncio.to_thread(client.processes) == []
    assert not list(client.data.glob("*/work/ran"))
    for payload in (running, waiting):
        async with client.http.get(f"/retrieve/{payload}") as response:
            assert response.status == 404


async def test_refusal_while_draining_has_a_retry_after_header(client: Client) -> None:
    await client.app[keys.DRAIN]()
    async with client.http.post("/submit", data={"x": "y"}) as response:
        assert response.status == 503
        assert int(response.headers["Retry-After"]) > 0
        assert "takes no new payloads" in (await response.json())["message"]


async def test_drain_waits_for_results_to_be_fetched_only_while_a_server_follows_the_events(
    client: Client,
) -> None:
    await client.run("exit 0\n")
    await client.eventually(lambda: not client.app[keys.EVENTS].followed)
    async with asyncio.timeout(60):
        await replace(client.app[keys.DRAIN], hand_over_s=3600.0)()
