"""The commands about the server's services and clients: services, clients."""

import click

from job_orchestrator.cli.session import Session, command


@click.command()
@command
async def services(session: Session) -> None:
    """List the services: limits, use, queue, problems."""
    found = await session.client.services()
    if session.json:
        session.show(found)
        return
    from job_orchestrator.cli.tables import service_table

    session.out.print(service_table(found))


@click.command()
@command
async def clients(session: Session) -> None:
    """List the compute clients: state, slots, load, versions."""
    found = await session.client.clients()
    if session.json:
        session.show(found)
        return
    from job_orchestrator.cli.tables import client_table

    session.out.print(client_table(found))
