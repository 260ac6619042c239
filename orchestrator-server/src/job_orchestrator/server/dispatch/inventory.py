"""Comparison of a client's payloads with the jobs of this server, after each connection.

The database may have lost what the client still has: a backup was restored, or an attempt was given
up without a record. A client may also serve other servers, whose payloads are left alone: keys tell
them apart (see ``Installation``).
"""

import logging
from collections.abc import Callable

from job_orchestrator.common.messages.payloads import InventoryEntry
from job_orchestrator.common.status import ACTIVE_JOB, JobStatus
from job_orchestrator.server.clients.base import InventoryNotOffered
from job_orchestrator.server.clients.registry import Client
from job_orchestrator.server.errors import ClientError
from job_orchestrator.server.model import Job
from job_orchestrator.server.store.base import JobStore

logger = logging.getLogger(__name__)


class Inventory:
    """Finds the payloads of one client that no job of this server needs any more.

    ``fetch`` starts a fetch of a job. The job is Killed, and its output is not here yet.
    """

    def __init__(self, client: Client, store: JobStore, fetch: Callable[[Job], None]) -> None:
        self._client = client
        self._store = store
        self._fetch = fetch

    async def compare(self) -> None:
        """Plan the end or the acknowledgement of each payload that is not needed any more.

        Payloads that run are ended as abandoned attempts. Has no effect with older clients, which
        can't list their payloads. The jobs are read after the payloads: a claim is in the database
        before its job is sent, so an unknown key can't become known later.
        """
        try:
            entries = await self._client.transport.inventory()
        except InventoryNotOffered:
            return
        except ClientError as error:
            logger.warning("The payloads are not compared with the jobs: %s", error)
            return
        # A key that can't be sent back as a header was never sent by a server.
        keys = {
            entry.key: entry
            for entry in entries
            if entry.key and entry.key.isascii() and entry.key.isprintable()
        }
        jobs = await self._store.lists.with_uuids([_uuid_of(key) for key in keys])
        for key, entry in keys.items():
            job = jobs.get(_uuid_of(key))
            if job is not None or self._store.installation.made(key):
                self._compare(key, entry, job)

    def _compare(self, key: str, entry: InventoryEntry, job: Job | None) -> None:
        if job is not None and job.key == key:
            if job.status in ACTIVE_JOB:
                return
            if job.status is JobStatus.KILLED and not job.has_output and job.dest_id == entry.id:
                self._fetch(job)
                return
        if entry.status.has_ended:
            self._client.unacknowledged.add(entry.id)
        else:
            logger.warning(
                "%s has payload %d of an attempt that no job is in: %s",
                self._client.name,
                entry.id,
                key,
            )
            self._client.abandoned.add(key)


def _uuid_of(key: str) -> str:
    return key.partition(".")[0]
