"""Tasks of arrays: scripts find their index in the environment."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_orchestrator.common.messages.arrays import MAX_INDEX, ArrayTask, array_task_of
from running_client import StartClient

SHOW = 'echo "${JO_ARRAY_ID-none} ${JO_ARRAY_INDEX-none} ${JO_ARRAY_SIZE-none}" > output\n'

tasks = st.builds(
    ArrayTask, st.integers(1, 2**63 - 1), st.integers(0, MAX_INDEX), st.integers(1, MAX_INDEX)
)


@given(tasks)
def test_fields_of_a_form_keep_the_task(task: ArrayTask) -> None:
    assert array_task_of({name: [text] for name, text in task.fields()}) == task


async def output_of(start_client: StartClient, fields: list[tuple[str, str]]) -> str:
    client = await start_client()
    payload = await client.submit(SHOW, fields=fields)
    await client.until(payload, "Completed")
    return (await client.archive(payload)).read("output").decode()


async def test_script_finds_its_index_in_the_environment(start_client: StartClient) -> None:
    assert await output_of(start_client, ArrayTask(12, 0, 100).fields()) == "12 0 100\n"


async def test_script_of_another_job_has_no_index(start_client: StartClient) -> None:
    assert await output_of(start_client, []) == "none none none\n"


@pytest.mark.parametrize("index", ["x", "", "-1", "9" * 5000, "2147483648"])
async def test_wrong_index_is_refused(start_client: StartClient, index: str) -> None:
    client = await start_client()
    fields = [("array_id", "1"), ("array_index", index), ("array_size", "2")]
    status, answer = await client.post("true", fields=fields)
    assert (status, answer["message"].startswith("Invalid fields of an array")) == (400, True)


async def test_client_reports_that_it_runs_tasks(start_client: StartClient) -> None:
    client = await start_client()
    async with client.http.get("/events") as events:
        assert b'"arrays":true' in await events.content.readuntil(b"\n\n")
