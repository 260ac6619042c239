"""Calls about the server itself and its scheduler: services, clients, pauses, explanations."""

from urllib.parse import quote

from job_orchestrator.common.messages.explanation import Explanation
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
    """Base of ``AsyncClient``: the calls that concern the server, and those for administrators."""

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

    async def explain(self, job_id: int) -> Explanation:
        """Fetch all on which the start of a queued job depends: limits, order, compute clients.

        Raises:
            NotAuthorized: The token is not that of an administrator.
            JobNotFound: No job has this id.
        """
        body = await self._connection.call("GET", f"/jobs/{job_id}/explanation", read_all)
        return decode(body, Explanation, self.url)

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

    async def drain_client(self, name: str) -> list[ComputeClient]:
        """Give a client no more jobs; those that it has go on. Return all clients.

        The name of a client is the ``url`` that ``clients`` returns.

        Raises:
            Refused: There is no client with this name.
        """
        return await self._change_client("POST", name, "/drain")

    async def resume_client(self, name: str) -> list[ComputeClient]:
        """Give a drained client jobs again; see ``drain_client``."""
        return await self._change_client("POST", name, "/resume")

    async def forget_client(self, name: str) -> list[ComputeClient]:
        """Forget a client that has registered itself and has no jobs. If it is connected, it ends.

        Raises:
            Refused: There is no such client, it has jobs, or the settings of the server name it.
        """
        return await self._change_client("DELETE", name, "")

    async def _change_client(self, method: str, name: str, action: str) -> list[ComputeClient]:
        path = f"/clients/{quote(name, safe='')}{action}"
        body = await self._connection.call(method, path, read_all)
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
