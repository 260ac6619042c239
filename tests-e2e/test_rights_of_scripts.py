"""Rights of scripts that run as root: they can't mount, spy on their client, or hold it up."""

import base64
import os

import aiohttp
import pytest

from harness import Portal, StartClient, StartServer

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="scripts of root need root")

ATTEMPTS = """\
grep CapEff /proc/self/status
touch kept
chattr +i kept 2> /dev/null && echo immutable
mkdir -p there && mount -t tmpfs tmpfs there 2> /dev/null && echo mounted
mknod disk b 7 0 2> /dev/null && echo device
client=$(awk '/^PPid/ {print $2}' /proc/$PPID/status)
cat /proc/$client/environ > /dev/null 2>&1 && echo environment
chown 1234 kept && echo files
"""


@pytest.mark.parametrize("cgroups", ["auto", "off"])
async def test_trap_67_scripts_of_root_have_only_the_capabilities_of_users_programs(
    start_client: StartClient,
    start_server: StartServer,
    session: aiohttp.ClientSession,
    cgroups: str,
) -> None:
    client = await start_client(CGROUPS=cgroups)
    server = await start_server(client)
    portal = Portal(server.url, session)
    # The script check would refuse the commands in a readable form.
    encoded = base64.b64encode(ATTEMPTS.encode()).decode()
    job = await portal.submit(f"echo {encoded} | base64 -d > attempts\nbash attempts\n")
    assert (await portal.end_of(job))["status"] == "Completed"
    output = (await portal.results(job)).read(".orchestrator/stdout.txt").decode().splitlines()
    assert output[1:] == ["files"]
    assert int(output[0].split()[1], 16) & ~0x424FB == 0
    assert "Jobs run as root" in client.logged
    async with session.get(f"{server.url}/clients") as response:
        (found,) = (await response.json())["clients"]
    assert "Jobs run as root" in found["warnings"][0]
