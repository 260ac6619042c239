"""Tables of jobs, services and clients for terminals."""

from collections.abc import Iterable

from rich.markup import escape
from rich.table import Table
from rich.text import Text

from job_orchestrator.cli.formatting import duration, moment, ran_s, size, waited_s
from job_orchestrator.sdk import ComputeClient, Job, JobDetail, JobStatus, Service

_COLOURS = {
    JobStatus.COMPLETED: "green",
    JobStatus.RUNNING: "cyan",
    JobStatus.FAILED: "red",
    JobStatus.INVALID: "red",
    JobStatus.KILLED: "yellow",
    JobStatus.UNKNOWN: "yellow",
    JobStatus.CLEANED: "dim",
}
_STATE_COLOURS = {"ok": "green", "connected": "green", "down": "red", "unreachable": "red"}


def status_text(status: JobStatus) -> Text:
    """Return the name of a job's state in its colour."""
    return Text(status, style=_COLOURS.get(status, ""))


def _state_text(state: str) -> Text:
    return Text(state, style=_STATE_COLOURS.get(state, "yellow"))


def job_table(jobs: Iterable[Job]) -> Table:
    """Build a table with one line for each job. It has tags only if one of the jobs has one."""
    shown = list(jobs)
    tagged = any(job.tag for job in shown)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("ID", "USER"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("SERVICE", "STATUS", "SUBMITTED", "WAITED", "RAN"):
        table.add_column(heading, no_wrap=True)
    # A narrow terminal shortens these columns; their cells stay on one line (``_line``).
    table.add_column("NAME", max_width=30)
    if tagged:
        table.add_column("TAG", max_width=20)
    table.add_column("MESSAGE", max_width=60)
    for job in shown:
        tag = [_line(job.tag)] if tagged else []
        table.add_row(
            str(job.id),
            str(job.user_id),
            job.service,
            status_text(job.status),
            moment(job.created_at),
            duration(waited_s(job)),
            duration(ran_s(job)),
            _line(job.name or ""),
            *tag,
            _line(job.message),
        )
    return table


def _line(text: str) -> Text:
    return Text(text, no_wrap=True, overflow="ellipsis")


def job_card(job: JobDetail) -> Table:
    """Build a table with all fields of one job that have a value."""
    card = Table.grid(padding=(0, 2))
    queue = job.queue
    rows: dict[str, str | Text] = {
        "job": str(job.id),
        "status": status_text(job.status),
        "message": escape(job.message),
        "name": escape(job.name or ""),
        "tag": escape(job.tag or ""),
        "user": str(job.user_id),
        "service": job.service,
        "priority": str(job.priority or ""),
        "exit code": "" if job.exit_code is None else str(job.exit_code),
        "client": job.client or "",
        "attempt": str(job.attempt) if job.attempt > 1 else "",
        "failed attempts": _failures(job),
        "ahead": "" if queue is None else str(queue.ahead),
        "starts in": "" if queue is None else f"about {duration(queue.estimated_wait_s)}",
        "time limit": duration(job.time_limit_s) if job.time_limit_s else "",
        "asks for": _resources(job),
        "selected results": escape(_selection(job)),
        "after": ", ".join(map(str, job.after)),
        "after any end of": ", ".join(map(str, job.afterany)),
        "submitted": moment(job.created_at),
        "waited": duration(waited_s(job)),
        "ran": duration(ran_s(job)),
        "results": size(job.output_bytes) if job.has_output else "",
    }
    for what, value in rows.items():
        if str(value) not in ("", "-", "about -"):
            card.add_row(f"[dim]{what}[/dim]", value)
    return card


def _resources(job: JobDetail) -> str:
    parts = [f"{job.cpus:g} CPUs"] if job.cpus else []
    parts += [f"{size(job.memory_bytes)} of memory"] if job.memory_bytes else []
    parts += [f"{job.gpus} GPUs"] if job.gpus else []
    return ", ".join(parts)


def _selection(job: JobDetail) -> str:
    kind = ["made or changed by the script"] if job.results == "new" else []
    return ", ".join([*kind, *job.outputs])


def _failures(job: JobDetail) -> str:
    if not job.failures or job.max_attempts is None:
        return str(job.failures or "")
    return f"{job.failures} of {job.max_attempts}"


def history_table(job: JobDetail) -> Table:
    """Build a table of the states that a job has been in, and for how long."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("AT", "STATE", "FOR", "WHY"):
        table.add_column(heading)
    for step in job.history:
        lasted = "" if step.to.has_ended else duration(step.seconds)
        table.add_row(moment(step.at), status_text(step.to), lasted, escape(step.why))
    return table


def service_table(services: Iterable[Service]) -> Table:
    """Build a table with one line for each service."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in ("SERVICE", "STATE", "RUNNING", "WAITING", "PER USER", "TIME LIMIT", "CLIENTS"):
        table.add_column(heading, no_wrap=True)
    table.add_column("PROBLEM", overflow="fold")
    for service in services:
        table.add_row(
            service.name,
            _state_text(service.state),
            f"{service.running} of {service.max_runs}",
            str(service.waiting),
            str(service.runs_per_user),
            duration(service.time_limit_s),
            str(len(service.clients)),
            escape(service.problem or ""),
        )
    return table


def client_table(clients: Iterable[ComputeClient]) -> Table:
    """Build a table with one line for each client."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("CLIENT", overflow="fold")
    for heading in ("STATE", "SLOTS", "WAITING", "CPU", "MEMORY", "VERSION"):
        table.add_column(heading, no_wrap=True)
    for heading in ("SERVICES", "PROBLEM"):
        table.add_column(heading, overflow="fold")
    for client in clients:
        table.add_row(
            # Without the parts that all URLs share, to save room in a narrow terminal.
            client.url.removeprefix("http://").removesuffix("/submit"),
            _state_text("drained" if client.drained else client.state),
            "-" if client.slots is None else f"{client.running or 0} of {client.slots}",
            "-" if client.waiting is None else str(client.waiting),
            _per_cent(client.cpu),
            _per_cent(client.memory),
            client.version or "-",
            ", ".join(client.services),
            escape(client.problem or ""),
        )
    return table


def _per_cent(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f} %"
