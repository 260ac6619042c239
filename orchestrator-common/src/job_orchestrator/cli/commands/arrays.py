"""Arrays in commands: wait for all tasks, show their states, download and cancel all."""

from pathlib import Path

import click

from job_orchestrator.cli import exit_codes
from job_orchestrator.cli.session import Session
from job_orchestrator.cli.unpacking import unpack
from job_orchestrator.cli.wait import check_target
from job_orchestrator.sdk import JobArray, JobStatus
from job_orchestrator.sdk.threads import in_thread


async def wait_for_array(
    session: Session, array_id: int, output: Path | None, timeout_s: float | None = None
) -> int:
    """Wait until all tasks have ended, and download their results. Return the exit status."""
    session.interrupt_note = (
        f"The tasks of array {array_id} continue. Cancel them: jo cancel --array {array_id}. "
        f"List them: jo list --array {array_id}. Wait for them: jo wait --array {array_id}"
    )
    array = await session.client.wait_array(array_id, timeout_s=timeout_s)
    session.interrupt_note = ""
    _show(session, array)
    if output is not None:
        await download_array(session, array_id, output)
    return _exit_status(array)


async def download_array(session: Session, array_id: int, target: Path) -> None:
    """Download the results of all tasks to a ZIP, or unpack them into a new folder."""
    await check_target(target)
    unpacked = target.suffix != ".zip"
    archive = target.with_name(f".{target.name}.array-{array_id}.zip") if unpacked else target
    try:
        with session.progress_bar(f"Downloading array {array_id}") as progress:
            await session.client.download_array(
                array_id, archive, overwrite=unpacked, progress=progress
            )
        if unpacked:
            count = await in_thread(unpack, archive, target)
            session.say(f"{count} files in {target}")
        else:
            session.say(f"Results in {target}")
    finally:
        if unpacked:
            await in_thread(archive.unlink, missing_ok=True)


async def cancel_array(session: Session, array_id: int) -> int:
    """Cancel all tasks. Return the exit status."""
    session.interrupt_note = (
        f"The server may still cancel array {array_id}. Check with: jo list --array {array_id}"
    )
    array = await session.client.cancel_array(array_id)
    if session.json:
        session.show(array)
    else:
        click.echo(_text(array))
    return exit_codes.TRY_LATER if array.unended else 0


def _show(session: Session, array: JobArray) -> None:
    if session.json:
        session.show(array)
    else:
        session.say(_text(array))


def _text(array: JobArray) -> str:
    """Return how many tasks are in each state: "Array 7: 98 Completed, 2 Failed"."""
    counts = (f"{array.counts[status]} {status}" for status in JobStatus if status in array.counts)
    return f"Array {array.id}: {', '.join(counts)}"


def _exit_status(array: JobArray) -> int:
    done = array.counts.get(JobStatus.COMPLETED, 0) + array.counts.get(JobStatus.CLEANED, 0)
    return 0 if done == array.size else exit_codes.FAILED
