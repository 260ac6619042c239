"""Completion of services and job ids for the shell, asked from the server."""

import asyncio
from collections.abc import Awaitable, Callable

import click
from click.shell_completion import CompletionItem

from job_orchestrator.cli.session import DEFAULT_URL
from job_orchestrator.sdk import ApiError, AsyncClient, Job, JobStatus

TIMEOUT_S = 1.0
"""A person waits for the completion: a slow server completes nothing."""

MAX_JOBS = 50
UNENDED = frozenset(status for status in JobStatus if not status.has_ended)


def complete_services(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the name of a service."""

    async def found(client: AsyncClient) -> list[CompletionItem]:
        return [
            CompletionItem(service.name)
            for service in await client.services()
            if service.name.startswith(incomplete.lower())
        ]

    return _ask_server(context, found)


def complete_jobs(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the id of a recent job."""
    return _complete_jobs(context, incomplete, frozenset())


def complete_unended_jobs(
    context: click.Context, _: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Complete the id of a job that has not ended."""
    return _complete_jobs(context, incomplete, UNENDED)


def _complete_jobs(
    context: click.Context, incomplete: str, states: frozenset[JobStatus]
) -> list[CompletionItem]:
    given = {str(job_id) for job_id in context.params.get("job_ids") or ()}

    async def found(client: AsyncClient) -> list[CompletionItem]:
        items: list[CompletionItem] = []
        listed = client.jobs(status=states)
        async for job in listed:
            if str(job.id).startswith(incomplete) and str(job.id) not in given:
                items.append(CompletionItem(str(job.id), help=_summary(job)))
            if len(items) == MAX_JOBS:
                break
        await listed.aclose()
        return items

    return _ask_server(context, found)


def _summary(job: Job) -> str:
    return " ".join(text for text in (job.status, job.service, job.name) if text)


def _ask_server(
    context: click.Context, ask: Callable[[AsyncClient], Awaitable[list[CompletionItem]]]
) -> list[CompletionItem]:
    """Return the answer of ``ask``; nothing if the server does not answer in time.

    Silent on every error, because a message would be printed into the line that is being typed.
    """
    before = {} if context.parent is None else context.parent.params
    # The options include the variables JO_URL and JO_TOKEN.
    url = before.get("url") or context.params.get("url") or DEFAULT_URL
    token = before.get("token") or context.params.get("token")

    async def answer() -> list[CompletionItem]:
        async with asyncio.timeout(TIMEOUT_S), AsyncClient(url, token, patience_s=0) as client:
            return await ask(client)

    try:
        return asyncio.run(answer())
    except (ApiError, OSError, ValueError):
        return []
