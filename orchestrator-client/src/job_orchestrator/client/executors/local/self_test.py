"""Self-test at the start: scripts can run as another user, or in the sandbox."""

from collections.abc import Awaitable, Callable, Sequence

from job_orchestrator.client.executors.base import (
    ExecutorBusy,
    RunId,
    RunRefused,
    RunRequest,
    RunState,
)
from job_orchestrator.client.workspace.layout import SCRIPT, Workspace, Workspaces
from job_orchestrator.common.errors import StartupError
from job_orchestrator.common.runtime.threads import in_thread

RUN_ID = RunId("probe")
MAX_REASON_BYTES = 300
_EXIT_CODE = 7
_SCRIPT = f'cd "$HOME" && echo well > proof || exit\nexit {_EXIT_CODE}\n'


async def verify_that_scripts_run(
    run_to_end: Callable[[RunRequest], Awaitable[RunState]],
    workspaces: Workspaces,
    settings: Sequence[str],
) -> None:
    """Run a script that writes to its home folder and ends with a known exit code.

    Raises ``StartupError``, which names ``settings`` and quotes the error output of the script.
    """
    workspace = workspaces.of(RUN_ID)
    await in_thread(_prepare, workspace)
    try:
        state = await run_to_end(RunRequest(RUN_ID, workspace))
        if state.outcome is None or state.outcome.exit_code != _EXIT_CODE:
            reason = state.reason or await in_thread(_error_output, workspace)
            raise StartupError(_problem(settings, reason))
    except (RunRefused, ExecutorBusy) as error:
        raise StartupError(_problem(settings, str(error))) from error
    finally:
        await in_thread(workspaces.remove, RUN_ID)


def _prepare(workspace: Workspace) -> None:
    workspace.work.mkdir(parents=True)
    (workspace.work / SCRIPT).write_text(_SCRIPT)
    workspace.complete()


def _error_output(workspace: Workspace) -> str:
    text = workspace.stderr.read_bytes()[:MAX_REASON_BYTES].decode("utf-8", "replace")
    return text.split("\n")[0] or "it ended without an error message"


def _problem(settings: Sequence[str], reason: str) -> str:
    return f"{' and '.join(settings)} cannot be used here: a test script failed: {reason}"
