"""Client library and command with tokens: access to own jobs only, and helpful refusals."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from harness import Service, StartClient, StartServer
from jo_command import Jo, write
from job_orchestrator.sdk import AsyncClient, JobNotFound, JobStatus, NotAuthorized
from test_tokens import make_token

WRONG = "jo_wrong_token_that_nobody_made"


@dataclass
class Tokens:
    """A server that requires tokens, and some valid ones."""

    server: Service
    file: Path
    mine: str
    others: str
    admins: str


@pytest.fixture
async def tokens(tmp_path: Path, start_client: StartClient, start_server: StartServer) -> Tokens:
    file = tmp_path / "tokens.json"
    made = [
        await asyncio.to_thread(make_token, file, *scope)
        for scope in (("--user", "7"), ("--user", "8"), ("--admin",))
    ]
    server = await start_server(await start_client(), API_TOKENS_FILE=str(file))
    return Tokens(server, file, *made)


@pytest.fixture
async def mine(tokens: Tokens) -> AsyncIterator[AsyncClient]:
    """Connect as user 7."""
    async with AsyncClient(tokens.server.url, tokens.mine, patience_s=0) as client:
        yield client


async def test_trap_41_library_gives_a_users_own_jobs_and_no_others(
    tokens: Tokens, mine: AsyncClient, tmp_path: Path
) -> None:
    job = (await mine.submit("example", {"run.sh": b"echo 42 > out\n"}, user_id=7)).id
    assert (await mine.wait(job)).status is JobStatus.COMPLETED
    assert await mine.download(job, tmp_path / "mine.zip") == tmp_path / "mine.zip"
    assert [listed.id async for listed in mine.jobs()] == [job]
    with pytest.raises(NotAuthorized, match="This token is for user 7 only"):
        await mine.submit("example", {"run.sh": b"exit 0\n"}, user_id=8)
    async with AsyncClient(tokens.server.url, tokens.others, patience_s=0) as others:
        assert [listed.id async for listed in others.jobs()] == []
        for call in (
            others.job(job),
            others.wait(job),
            others.files(job),
            others.cancel(job),
            others.download(job, tmp_path / "theirs.zip"),
            anext(others.logs(job)),
            anext(others.watch(job)),
        ):
            with pytest.raises(JobNotFound, match=f"Job {job} not found in the database"):
                await call
        with pytest.raises(NotAuthorized):
            await others.clients()
    assert not (tmp_path / "theirs.zip").exists()
    async with AsyncClient(tokens.server.url, tokens.admins, patience_s=0) as admin:
        assert (await admin.job(job)).user_id == 7
        assert len(await admin.clients()) == 1


@pytest.mark.parametrize("token", [WRONG, None])
async def test_call_without_a_valid_token_says_what_to_do(
    tokens: Tokens, token: str | None
) -> None:
    async with AsyncClient(tokens.server.url, token, patience_s=0) as nobody:
        with pytest.raises(NotAuthorized, match="Give a valid token") as refused:
            await nobody.submit("example", {"run.sh": b"exit 0\n"}, user_id=7)
        assert WRONG not in str(refused.value)
        assert (await nobody.health()).status == "healthy"


async def test_trap_41_command_gives_a_users_own_jobs_and_no_others(
    tokens: Tokens, tmp_path: Path
) -> None:
    runs: dict[str, Jo] = {}
    for name, token in (("mine", tokens.mine), ("others", tokens.others), ("nobody", WRONG)):
        (tmp_path / name).mkdir()
        runs[name] = Jo(tokens.server.url, tmp_path / name)
        runs[name].env["JO_TOKEN"] = token
    mine, others, nobody = runs["mine"], runs["others"], runs["nobody"]
    write(mine, "echo 42 > out\n")
    # The token names the owner of the job.
    done = await mine("submit", "--service", "example", "run.sh", "-o", "out.zip")
    assert done.code == 0, done.err
    assert (await mine("list", "--json")).json[0]["user_id"] == 7
    assert (await others("list", "--json")).json == []
    for subcommand in ("status", "wait", "logs", "cancel", "download"):
        run = await others(subcommand, "1")
        assert (run.code, run.out) == (66, "")
        assert run.err == "jo: Job 1 not found in the database; list jobs to see which there are\n"
    assert [path.name for path in others.folder.iterdir()] == []
    run = await nobody("status", "1")
    assert (run.code, run.out) == (77, "")
    assert "Give a valid token (token=…; JO_TOKEN for the command)" in run.err
    assert WRONG not in run.err


async def test_stream_of_a_revoked_token_raises_not_authorized(tokens: Tokens) -> None:
    async with AsyncClient(tokens.server.url, tokens.mine) as mine:
        job = (await mine.submit("example", {"run.sh": b"sleep 4751\n"}, user_id=7)).id
        changes = mine.watch(job)
        assert (await anext(changes)).id == job
        await asyncio.to_thread(tokens.file.write_text, '{"tokens": []}')
        with pytest.raises(NotAuthorized, match="Give a valid token"):
            async for _ in changes:
                pass
