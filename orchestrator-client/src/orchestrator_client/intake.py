"""Takes a payload in: files to a workspace, then a row."""

import sqlite3
import uuid
from dataclasses import dataclass

from orchestrator_client.errors import MissingScript, PayloadNotFound
from orchestrator_client.payload_ids import PayloadIds
from orchestrator_client.payloads import PayloadRow, PayloadStore
from orchestrator_client.workspace import SCRIPT, Workspaces
from orchestrator_common.multipart import BodyStream, FormLimits, receive_form
from orchestrator_common.threads import in_thread, to_end


@dataclass(frozen=True)
class Intake:
    """The way in."""

    store: PayloadStore
    workspaces: Workspaces
    ids: PayloadIds
    limits: FormLimits

    async def submit(self, body: BodyStream, content_type: str, key: str | None) -> PayloadRow:
        """Take a payload in; the same ``key`` again gives the same payload, and no second run.

        On any error nothing of it is left. Raises ``BadRequest`` and its kinds, ``BodyTimeout``,
        ``StorageFull``.
        """
        name = str(uuid.uuid4())
        kept: list[PayloadRow] = []
        try:
            folder = await in_thread(self.workspaces.begin, name)
            # Not flushed to the disk: after a power cut the server sends the job again.
            form = await receive_form(body, content_type, folder, self.limits, durable=False)
            if SCRIPT not in form.files:
                raise MissingScript(f"Missing {SCRIPT}")
            await to_end(self._accept(name, key, kept))
        finally:
            if not (kept and kept[0].uuid == name):
                await in_thread(self.workspaces.remove, name)
        return kept[0]

    async def _accept(self, name: str, key: str | None, kept: list[PayloadRow]) -> None:
        known = await self.store.by_key(key) if key else None
        if known is None:
            await in_thread(self.workspaces.accept, name)
            known = await self._add(name, key)
        kept.append(known)

    async def _add(self, name: str, key: str | None) -> PayloadRow:
        """Add the row, or find the one of a submit with the same key that was faster."""
        payload_id = await in_thread(self.ids.take)
        try:
            row = await self.store.add(payload_id, name, key)
        except sqlite3.Error:
            # Whether the row is there is not known: with its files removed it could not run.
            await self.store.drop(payload_id)
            raise
        if row is None and key:
            row = await self.store.by_key(key)
        if row is None:
            raise PayloadNotFound(payload_id)
        return row
