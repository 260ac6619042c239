"""Command doctor: checks of a set-up, with advice for each problem."""

import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import click
from rich.markup import escape

from job_orchestrator.cli import exit_codes
from job_orchestrator.cli.formatting import size
from job_orchestrator.cli.session import Session, command
from job_orchestrator.common import __version__
from job_orchestrator.sdk import (
    ApiError,
    ComputeClient,
    Identity,
    NotAuthorized,
    ServerFailed,
    Service,
)

MAX_SKEW_S = 5.0
"""Tolerance: the header ``Date`` has whole seconds, and the answer takes some time."""

MIN_FREE_BYTES = 1 << 30

RESTART = "Change the setting on the client's machine, and restart jo-client"

Verdict = Literal["ok", "warning", "problem"]
_MARKS = {"ok": "[green]✓[/green]", "warning": "[yellow]![/yellow]", "problem": "[red]✗[/red]"}


@dataclass(frozen=True)
class Finding:
    """Result of one check: its subject, its verdict, the observation, and advice for a problem."""

    about: str
    verdict: Verdict
    found: str
    advice: str = ""


@click.command()
@command
async def doctor(session: Session) -> int:
    """Check the set-up: server, clients, versions, clocks, disk. Exit status 1: a problem."""
    findings: list[Finding] = []
    session.retries = False
    async for finding in examine(session):
        findings.append(finding)
        if not session.json:
            _print(session, finding)
    if session.json:
        session.show([vars(finding) for finding in findings])
    bad = any(finding.verdict == "problem" for finding in findings)
    return exit_codes.FAILED if bad else 0


def _print(session: Session, finding: Finding) -> None:
    mark = _MARKS[finding.verdict]
    session.out.print(f"{mark} {finding.about}: {escape(finding.found)}")
    if finding.advice:
        session.out.print(f"  → {escape(finding.advice)}")


async def examine(session: Session) -> AsyncIterator[Finding]:
    """Yield the results of the checks. Checks that depend on a failed one are skipped."""
    try:
        health = await session.client.health()
    except ServerFailed as error:
        yield Finding(
            "server", "problem", str(error), "See its log for the cause; repair it and restart it"
        )
        return
    except NotAuthorized as error:
        yield Finding("server", "problem", str(error), "Give a valid token: --token or JO_TOKEN")
        return
    except ApiError as error:
        yield Finding("server", "problem", str(error), "Give the URL of jo-server: --url or JO_URL")
        return
    yield Finding("server", "ok", f"{session.client.url} answers; database and data folder work")
    yield _version("server", health.version)
    yield _clocks(health.ahead_s)
    async for finding in _check_services(session):
        yield finding
    yield _disk()


def _version(whose: str, version: str | None) -> Finding:
    if version == __version__:
        return Finding(f"{whose} version", "ok", f"{version}, as this command")
    return Finding(
        f"{whose} version",
        "warning",
        f"{version or 'unknown'}; this command has {__version__}",
        "Install the same version everywhere",
    )


def _clocks(ahead_s: float | None) -> Finding:
    if ahead_s is None:
        advice = "Let the proxy in front of the server pass its header Date on"
        return Finding("clocks", "warning", "the server sends no time", advice)
    if abs(ahead_s) <= MAX_SKEW_S:
        return Finding("clocks", "ok", "the server's and this machine's agree")
    return Finding(
        "clocks",
        "warning",
        f"the server's is {abs(ahead_s):.0f} s {'ahead' if ahead_s > 0 else 'behind'}",
        "Synchronize the clocks of both machines (chrony, systemd-timesyncd)",
    )


async def _check_services(session: Session) -> AsyncIterator[Finding]:
    """Yield the checks of the access to the server, of its services and of its clients."""
    try:
        me = await session.client.whoami()
        services = await session.client.services()
        clients = await session.client.clients() if me.admin else []
    except ApiError as error:
        yield Finding("access", "problem", str(error), "Give a valid token: --token or JO_TOKEN")
        return
    yield _access(me)
    for service in services:
        yield _service(service, me)
    for client in clients:
        yield _client(client)
        for problem in client.warnings:
            yield Finding(f"settings of {client.url}", "warning", problem, RESTART)
        answers = client.state not in ("unreachable", "unknown")
        if answers and client.version and client.version != __version__:
            yield _version(f"client {client.url}", client.version)


def _access(me: Identity) -> Finding:
    if not me.auth:
        advice = "Fine on a private network; otherwise create tokens"
        return Finding("access", "warning", "the server requires no tokens", advice)
    who = "an administrator" if me.admin else f"user {me.user_id}"
    limits = "" if me.admin else ", who may not see the clients"
    return Finding("access", "ok", f"the token is that of {who}{limits}")


def _service(service: Service, me: Identity) -> Finding:
    about = f"service {service.name}"
    if service.state == "ok":
        use = f"{service.running} of {service.max_runs} running, {service.waiting} waiting"
        return Finding(about, "ok", use)
    verdict: Verdict = "problem" if service.state == "down" else "warning"
    advice = (
        "See its clients below"
        if me.admin
        else "Ask an administrator, to whom jo doctor also shows the clients"
    )
    return Finding(about, verdict, service.problem or service.state, advice)


def _client(client: ComputeClient) -> Finding:
    about = f"client {client.url}"
    match client.state:
        case "unreachable":
            advice = (
                "Is jo-client running there, and can the server reach it (firewall, URL, token)?"
            )
            return Finding(about, "problem", client.problem or "unreachable", advice)
        case "unknown":
            found = client.problem or "the server has not reached it yet"
            return Finding(about, "warning", found, "Wait some seconds and repeat jo doctor")
        case "polled":
            advice = "It is an older version; jo-client of this version reports changes immediately"
            return Finding(about, "warning", "polled: it has no event stream", advice)
    use = f"connected, {client.running or 0} of {client.slots} slots in use"
    if client.problem:
        advice = "Repair it on the client's machine; jo-client notices that without a restart"
        return Finding(about, "warning", client.problem, advice)
    return Finding(about, "ok", use)


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free
    if free >= MIN_FREE_BYTES:
        return Finding("disk", "ok", f"{size(free)} free here for results")
    return Finding("disk", "warning", f"only {size(free)} free here", "Free some space for results")
