"""Self-test: the machine can run scripts, as the user and in the sandbox that are configured."""

import contextlib
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from uuid import uuid4

from job_orchestrator.client.errors import MachineFault
from job_orchestrator.client.executors.base import (
    ExecutorBusy,
    RunId,
    RunRefused,
    RunRequest,
    RunState,
)
from job_orchestrator.client.workspace.layout import SCRIPT, Workspace, Workspaces
from job_orchestrator.common.errors import StartupError, StorageFull
from job_orchestrator.common.runtime.threads import in_thread

RunToEnd = Callable[[RunRequest], Awaitable[RunState]]

RUN_ID = "probe"
MAX_REASON_BYTES = 300
_EXIT_CODE = 7
_ROOM_BYTES = 1 << 20
_SCRIPT = f'cd "$HOME" && echo well > proof || exit\nexit {_EXIT_CODE}\n'


async def verify_that_scripts_run(
    run_to_end: RunToEnd, workspaces: Workspaces, settings: Sequence[str]
) -> None:
    """Run a test script at the start of jo-client.

    Raises ``StartupError``, which names ``settings``.
    """
    try:
        await check_that_scripts_run(run_to_end, workspaces)
    except MachineFault as error:
        raise StartupError(f"{' and '.join(settings)} cannot be used here: {error}") from error


async def check_that_scripts_run(run_to_end: RunToEnd, workspaces: Workspaces) -> None:
    """Run a script that writes to its home folder and ends with a known exit code.

    Raises ``MachineFault``, which quotes the error output of the script.
    """
    workspace = workspaces.of(f"{RUN_ID}-{uuid4().hex}")
    run_id = RunId(workspace.root.name)
    try:
        await in_thread(_prepare, workspace)
        state = await run_to_end(RunRequest(run_id, workspace))
        if state.outcome is None or state.outcome.exit_code != _EXIT_CODE:
            raise MachineFault(state.reason or await in_thread(_error_output, workspace))
    except (MachineFault, RunRefused, ExecutorBusy, StorageFull, OSError) as error:
        raise MachineFault(f"a test script failed: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            await in_thread(workspaces.remove, run_id)


def _prepare(workspace: Workspace) -> None:
    workspace.work.mkdir(parents=True)
    (workspace.work / SCRIPT).write_text(_SCRIPT)
    with tempfile.TemporaryFile(dir=workspace.work) as room:
        room.write(bytes(_ROOM_BYTES))
    workspace.complete()


def _error_output(workspace: Workspace) -> str:
    text = workspace.stderr.read_bytes()[:MAX_REASON_BYTES].decode("utf-8", "replace")
    return text.split("\n")[0] or "it ended without an error message"
