"""Calls about the server itself: services, clients, statistics, pauses, health."""

from job_orchestrator.common.messages.service import (
    ClientList,
    ComputeClient,
    Identity,
    Minute,
    PauseList,
    Service,
    ServiceList,
    Stats,
    User,
    UserList,
)
from job_orchestrator.sdk import calls
from job_orchestrator.sdk.connection import Connection, read_all
from job_orchestrator.sdk.models import Health, decode


class ServiceCalls:
    """Base of ``AsyncClient``: the calls that concern no single job."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    @property
    def url(self) -> str:
        """URL of the server, without a trailing slash."""
        return self._connection.url

    @property
    def answered(self) -> bool:
        """True once the server has answered this client."""
        return self._connection.answered

    async def pause(self, *, service: str | None = None, user_id: int | None = None) -> PauseList:
        """Start no more jobs of a service, or of a user. Return all that is paused."""
        return await calls.set_pause(self._connection, "/pause", service, user_id)

    async def resume(self, *, service: str | None = None, user_id: int | None = None) -> PauseList:
        """Start the jobs of a service, or of a user, again; see ``pause``."""
        return await calls.set_pause(self._connection, "/resume", service, user_id)

    async def services(self) -> list[Service]:
        """Fetch the services of the server, with their limits, use and state."""
        body = await self._connection.call("GET", "/services", read_all)
        return decode(body, ServiceList, self.url).services

    async def clients(self) -> list[ComputeClient]:
        """Fetch the jo-clients of the server, as the server sees them.

        Raises:
            NotAuthorized: The token is not that of an administrator.
        """
        body = await self._connection.call("GET", "/clients", read_all)
        return decode(body, ClientList, self.url).clients

    async def stats(self) -> list[Minute]:
        """Fetch the statistics of the last hour, one entry for each minute, oldest first."""
        body = await self._connection.call("GET", "/stats", read_all)
        return decode(body, Stats, self.url).minutes

    async def whoami(self) -> Identity:
        """Fetch the user that the server takes the caller for."""
        body = await self._connection.call("GET", "/whoami", read_all)
        return decode(body, Identity, self.url)

    async def users(self) -> list[User]:
        """Fetch the users who have come with a token of a trusted issuer.

        Raises:
            NotAuthorized: The token is not that of an administrator.
        """
        body = await self._connection.call("GET", "/users", read_all)
        return decode(body, UserList, self.url).users

    async def health(self) -> Health:
        """Fetch the server's health.

        Returns:
            The server's version, and the difference of its clock.

        Raises:
            ServerFailed: The server can't do its work; the message names the cause.
        """
        return await calls.health(self._connection)
