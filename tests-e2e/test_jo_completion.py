"""Completion of jo in a shell."""

import asyncio

from jo_command import SUBMIT, TIMEOUT_S, Jo, write


async def test_shell_completion_lists_the_commands(jo: Jo) -> None:
    jo.env |= {"_JO_COMPLETE": "bash_complete", "COMP_WORDS": "jo sub", "COMP_CWORD": "1"}
    assert (await jo()).out == "plain,submit\n"


async def test_completion_prints_a_script_for_each_shell(jo: Jo) -> None:
    for shell in ("bash", "zsh", "fish"):
        run = await jo("completion", shell)
        assert (run.code, f"_JO_COMPLETE={shell}_complete" in run.out) == (0, True)
    assert (await jo("completion", "csh")).code == 2


async def test_completion_offers_services_and_jobs_of_the_server(jo: Jo) -> None:
    write(jo, "true\n")
    await jo(*SUBMIT, "run.sh", "--wait")
    write(jo, "sleep 300\n")
    await jo(*SUBMIT, "run.sh")

    async def completed(*words: str) -> list[str]:
        jo.env |= {
            "_JO_COMPLETE": "bash_complete",
            "COMP_WORDS": " ".join(("jo", *words)),
            "COMP_CWORD": str(len(words)),
        }
        run = await jo()
        assert (run.code, run.err) == (0, "")
        return [line.partition(",")[2] for line in run.out.split()]

    assert await completed("submit", "--service", "ex") == ["example"]
    assert await completed("list", "--service", "no") == []
    assert await completed("status", "1") == ["1"]
    assert await completed("logs", "") == ["2", "1"]
    assert await completed("cancel", "") == ["2"]
    assert await completed("cancel", "2", "") == []
    jo.env["JO_URL"] = "http://127.0.0.1:9"
    assert await completed("cancel", "") == []
    assert await completed("submit", "--service", "ex") == []


async def test_completion_does_not_wait_for_a_silent_server(jo: Jo) -> None:
    ended = asyncio.Event()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.transport.abort()
        ended.set()

    mute = await asyncio.start_server(accept, "127.0.0.1", 0)
    async with mute:
        jo.env |= {
            "JO_URL": "http://{}:{}".format(*mute.sockets[0].getsockname()),
            "_JO_COMPLETE": "bash_complete",
            "COMP_WORDS": "jo cancel 1",
            "COMP_CWORD": "2",
        }
        run = await asyncio.wait_for(jo(), TIMEOUT_S)
        assert (run.code, run.out.strip(), run.err) == (0, "", "")
        await asyncio.wait_for(ended.wait(), TIMEOUT_S)
