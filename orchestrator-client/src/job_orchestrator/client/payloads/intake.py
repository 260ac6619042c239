"""Accepts payloads: files to a workspace, then a row in the store."""

import errno
import logging
import uuid
from dataclasses import dataclass

from job_orchestrator.client.errors import ClientStops, ClientUnfit, MissingScript, PayloadNotFound
from job_orchestrator.client.model import PayloadRow
from job_orchestrator.client.payloads.fitness import Fitness
from job_orchestrator.client.payloads.ids import PayloadIds
from job_orchestrator.client.payloads.store import PayloadStore, StoreError
from job_orchestrator.client.results.selection import store_selection, wants_digests
from job_orchestrator.client.script_check.rules import check_script
from job_orchestrator.client.workspace.layout import SCRIPT, Workspaces
from job_orchestrator.common.errors import StorageFull
from job_orchestrator.common.logs.context import logging_about
from job_orchestrator.common.protocol.selection import read_selection
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.threads import in_thread, run_to_completion
from job_orchestrator.common.storage.form_receiver import (
    BodyStream,
    FormLimits,
    ReceivedForm,
    receive_form,
)

_FAULTS_OF_THE_DISK = frozenset({errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE})

logger = logging.getLogger(__name__)


@dataclass
class Intake:
    """Accepts submitted payloads.

    When it is not ``open``, or the machine has a fault, it only answers repeats of a submit.
    """

    store: PayloadStore
    workspaces: Workspaces
    ids: PayloadIds
    limits: FormLimits
    fitness: Fitness
    open: bool = True

    async def submit(
        self,
        body: BodyStream,
        content_type: str,
        key: str | None,
        time_limit_s: float | None = None,
    ) -> PayloadRow:
        """Accept a payload. A repeat with the same ``key`` returns the same payload.

        ``time_limit_s`` is how long its script may run. An error leaves no files. Raises
        ``BadRequest`` and its subclasses, ``BodyTimeout``, ``ClientStops``, ``StorageFull``.
        """
        if not self.open or self.fitness.problem:
            return await self._known(key)
        name = str(uuid.uuid4())
        accepted: list[PayloadRow] = []
        workspace = self.workspaces.of(name)

        def complete(form: ReceivedForm) -> tuple[int, str]:
            if SCRIPT not in form.files:
                raise MissingScript(f"Missing {SCRIPT}")
            # The files are not flushed to the disk: after a power cut the server sends them again.
            reach(Point.CLIENT_FORM_WHOLE)
            selection = read_selection(form.fields)
            workspace.complete()
            store_selection(workspace, selection, form.digests)
            refusal = check_script(workspace.script())
            return self.ids.take(), str(refusal or "")

        async def add(payload_id: int, refusal: str) -> None:
            accepted.append(await self._add(payload_id, name, key, refusal, time_limit_s))

        try:
            payload = await receive_form(
                body,
                content_type,
                workspace.work,
                self.limits,
                complete,
                wants_digests=wants_digests,
            )
            await run_to_completion(add(*payload))
            reach(Point.CLIENT_PAYLOAD_ADDED)
        except StorageFull:
            # A repeat needs no space: the files of the first submit are here.
            if key and (earlier := await self.store.by_key(key)) is not None:
                return earlier
            raise
        except OSError as error:
            # A failed connection is one, too, but has no file.
            if error.filename is None and error.errno not in _FAULTS_OF_THE_DISK:
                raise
            await self.fitness.report(f"Files can't be stored: {error}")
            raise ClientUnfit(self.fitness.problem) from error
        finally:
            if not (accepted and accepted[0].uuid == name):
                await in_thread(self.workspaces.remove, name)
        (row,) = accepted
        with logging_about(payload=row.id, key=key):
            logger.info("Payload %d is %s", row.id, row.status)
        return row

    async def payload_of(self, key: str) -> PayloadRow:
        """Return the payload of ``key``. If none has arrived yet, add one that never runs."""
        if (row := await self.store.by_key(key)) is not None:
            return row
        payload_id = await in_thread(self.ids.take)
        await self.store.add_killed(payload_id, str(uuid.uuid4()), key)
        # Not necessarily the added one: the submit may have arrived at the same time.
        return await self.store.by_key(key) or await self.store.get(payload_id)

    async def _add(
        self, payload_id: int, name: str, key: str | None, refusal: str, time_limit_s: float | None
    ) -> PayloadRow:
        """Add the row, or return that of an earlier submit with the same key."""
        if not self.open or self.fitness.problem:
            return await self._known(key)
        try:
            row = await self.store.add(payload_id, name, key, refusal, time_limit_s)
        except StoreError:
            # The row may have been added. Its files are removed, so it must not be run.
            await self.store.drop(payload_id)
            raise
        if row is None and key:
            row = await self.store.by_key(key)
        if row is None:
            raise PayloadNotFound(payload_id)
        return row

    async def _known(self, key: str | None) -> PayloadRow:
        """Return the payload of an earlier submit.

        Raises ``ClientStops`` or ``ClientUnfit`` if there is none.

        A server that repeats a submit must not be refused while its payload runs here.
        """
        row = await self.store.by_key(key) if key else None
        if row is None and self.open:
            raise ClientUnfit(self.fitness.problem)
        if row is None:
            raise ClientStops("This client stops and takes no new payloads; use another one")
        return row
