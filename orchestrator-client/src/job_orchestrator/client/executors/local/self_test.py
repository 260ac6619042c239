"""Shows at the start that scripts can run here as the settings ask."""

from job_orchestrator.client.executors.base import Executor
from job_orchestrator.client.executors.local.settings import ExecutionSettings
from job_orchestrator.client.workspace.layout import SCRIPT, Workspace, Workspaces
from job_orchestrator.common.errors import StartupError
from job_orchestrator.common.runtime.threads import in_thread

PROBE = "probe"
_EXIT_CODE = 7
_SCRIPT = f'cd "$HOME" && echo well > proof || exit\nexit {_EXIT_CODE}\n'
MAX_REASON_BYTES = 300


async def prove(executor: Executor, workspaces: Workspaces, settings: ExecutionSettings) -> None:
    """Run a script if it runs as another user or in a sandbox; nothing else can go so wrong.

    Raises ``StartupError`` with what it said.
    """
    if not (settings.run_as or settings.sandbox):
        return
    workspace = workspaces.of(PROBE)
    await in_thread(_prepare, workspace)
    try:
        execution = await executor.start(workspace)
        outcome = await execution.wait()
        if outcome.exit_code != _EXIT_CODE:
            raise StartupError(_problem(settings, await in_thread(_complaint, workspace)))
    except OSError as error:
        raise StartupError(_problem(settings, str(error))) from error
    finally:
        await in_thread(workspaces.remove, PROBE)


def _prepare(workspace: Workspace) -> None:
    workspace.work.mkdir(parents=True)
    (workspace.work / SCRIPT).write_text(_SCRIPT)
    workspace.complete()


def _complaint(workspace: Workspace) -> str:
    said = workspace.stderr.read_bytes()[:MAX_REASON_BYTES].decode("utf-8", "replace").split("\n")
    return said[0] or "it ended without a reason"


def _problem(settings: ExecutionSettings, reason: str) -> str:
    asked = [*(["RUN_AS"] if settings.run_as else []), *(["SANDBOX"] if settings.sandbox else [])]
    return f"{' and '.join(asked)} can't be kept here: a script that was tried said: {reason}"
