"""Tables of all that the start of a queued job depends on, for administrators."""

from collections.abc import Iterator

from rich.markup import escape
from rich.table import Table

from job_orchestrator.cli.formatting import duration, size
from job_orchestrator.sdk import ClientForJob, Explanation, LimitUse, Resources, UserInLine

MAX_SHOWN = 20
"""Users in line that are shown; of the others, only that of the job."""


def tables_of(explanation: Explanation) -> Iterator[Table]:
    """Yield the tables of an explanation: limits, users in line, clients."""
    if explanation.limits:
        yield _limits(explanation)
    if explanation.users:
        yield _users(explanation)
    if explanation.clients:
        yield _clients(explanation.clients)


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for heading in headings:
        table.add_column(heading, no_wrap=True)
    return table


def _limits(explanation: Explanation) -> Table:
    table = _table("LIMIT", "USED", "OF", "")
    for each in explanation.limits:
        reached = "[red]reached[/red]" if each.reached else ""
        table.add_row(
            _name(each, explanation.user_id), f"{each.used:g}", f"{each.limit:g}", reached
        )
    return table


def _name(limit: LimitUse, user_id: int) -> str:
    names = {
        "user_and_service": f"jobs of user {user_id} in {limit.name}",
        "borrowing": f"the same with idle slots of {limit.name}",
        "user": f"jobs of user {user_id} in all services",
        "group": f"jobs of the group {limit.name}",
        "service": f"jobs of {limit.name}",
        "total": "jobs of all services",
        "rate": f"starts of user {user_id} ({limit.name})",
    }
    return escape(names.get(limit.kind, f"{limit.kind} {limit.name}"))


def _users(explanation: Explanation) -> Table:
    table = _table("PLACE", "USER", "WEIGHT", "SHARE", "USED", "ACTIVE", "QUEUED", "NEXT", "")
    shown = explanation.users[:MAX_SHOWN]
    own = explanation.user_id
    shown += [user for user in explanation.users[MAX_SHOWN:] if user.user_id == own]
    for user in shown:
        mark = "[bold]" if user.user_id == own else ""
        table.add_row(
            "-" if user.place is None else str(user.place),
            f"{mark}{user.user_id}",
            f"{user.weight:g}",
            f"{user.share:.1%}",
            duration(user.usage_s),
            str(user.active),
            str(user.queued),
            "-" if user.next is None else str(user.next),
            _remark(user),
        )
    if (more := explanation.waiting_users - len(shown)) > 0:
        table.add_row("…", f"{more} more")
    return table


def _remark(user: UserInLine) -> str:
    parts = ["paused"] if user.paused else []
    parts += ["the rate allows none now"] if user.jobs_left == 0 else []
    return ", ".join(parts)


def _clients(clients: list[ClientForJob]) -> Table:
    table = _table("CLIENT", "STATE", "FREE SLOTS", "FREE RESOURCES", "KEPT FOR")
    table.add_column("TAKES THE JOB", overflow="fold")
    for client in clients:
        table.add_row(
            client.url.removeprefix("http://").removesuffix("/submit"),
            client.state,
            "-" if client.free is None else f"{client.free} of {client.slots}",
            _resources(client.resources_free, client.resources),
            "-" if client.kept_for is None else f"job {client.kept_for}",
            escape(f"no: {client.obstacle}") if client.obstacle else "[green]yes[/green]",
        )
    return table


def _resources(free: Resources | None, total: Resources | None) -> str:
    if free is None or total is None:
        return "-"
    parts = [f"{free.cpus:g} of {total.cpus:g} CPUs"] if total.cpus else []
    if total.memory_bytes:
        parts.append(f"{size(free.memory_bytes)} of {size(total.memory_bytes)}")
    parts += [f"{free.gpus} of {total.gpus} GPUs"] if total.gpus else []
    return ", ".join(parts) or "-"
