"""Accepts payloads: files to a workspace, then a row in the store."""

import errno
import hashlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import NamedTuple

from job_orchestrator.client.errors import (
    AttemptReturned,
    ClientStops,
    ClientTooSmall,
    ClientUnfit,
    MissingScript,
    PayloadNotFound,
)
from job_orchestrator.client.model import PayloadRow
from job_orchestrator.client.payloads.fitness import Fitness
from job_orchestrator.client.payloads.ids import PayloadIds
from job_orchestrator.client.payloads.keyless import KeylessPayloads
from job_orchestrator.client.payloads.records import PayloadRecords
from job_orchestrator.client.payloads.store import PayloadStore, StoreError
from job_orchestrator.client.results.selection import store_selection, wants_digests
from job_orchestrator.client.script_check.rules import check_script
from job_orchestrator.client.workspace.layout import (
    MAX_CHECKED_BYTES,
    SCRIPT,
    Workspace,
    Workspaces,
)
from job_orchestrator.common.errors import BadRequest, FilesTooLarge, StorageFull
from job_orchestrator.common.logs.context import logging_about
from job_orchestrator.common.messages.resources import NOTHING, Resources, resources_of
from job_orchestrator.common.protocol.selection import read_selection
from job_orchestrator.common.protocol.small_files import SmallFile, decode_files
from job_orchestrator.common.runtime.fault_injection import Point, reach
from job_orchestrator.common.runtime.short_work import ShortWork
from job_orchestrator.common.runtime.threads import in_thread
from job_orchestrator.common.status import PayloadStatus
from job_orchestrator.common.storage.form_receiver import BodyStream, receive_form
from job_orchestrator.common.storage.form_writer import Fields, FormLimits, ReceivedForm

_FAULTS_OF_THE_DISK = frozenset({errno.EROFS, errno.EIO, errno.EMFILE, errno.ENFILE})

SMALL_BYTES, SMALL_ENTRIES = 64 << 10, 16
"""Limits of files that are written in the event loop."""

SHORT_SCRIPT_BYTES = 512
"""Limit of a script that is checked there: a check takes some microseconds for each byte."""

KNOWN_SCRIPTS, KNOWN_BYTES = 128, 16 << 10
"""Scripts whose check is remembered, and the limit of their size."""

logger = logging.getLogger(__name__)


class _Complete(NamedTuple):
    """Complete files of a payload: its id, why its script is refused, and what it asks for."""

    payload_id: int
    refusal: str
    wanted: Resources


@dataclass
class Intake:
    """Accepts submitted payloads.

    When it is not ``open``, or the machine has a fault, it only answers repeats of a submit.
    ``arriving`` are the names of folders whose payloads are not complete yet. ``offer`` is what the
    machine has: a payload that asks for more is refused. ``records`` is set if payloads survive a
    restart.
    """

    store: PayloadStore
    workspaces: Workspaces
    ids: PayloadIds
    keyless: KeylessPayloads
    limits: FormLimits
    fitness: Fitness
    offer: Resources = NOTHING
    records: PayloadRecords | None = None
    open: bool = True
    arriving: set[str] = field(default_factory=set)
    _short: ShortWork = field(default_factory=ShortWork, init=False)

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

        def complete(workspace: Workspace, form: ReceivedForm) -> _Complete:
            if SCRIPT not in form.files:
                raise MissingScript(f"Missing {SCRIPT}")
            workspace.complete()
            return self._complete(workspace, workspace.script(), form.fields, form.digests)

        async def receive(workspace: Workspace) -> _Complete:
            return await receive_form(
                body,
                content_type,
                lambda: workspace.work,
                self.limits,
                partial(complete, workspace),
                wants_digests=wants_digests,
            )

        return await self._accept(receive, key, time_limit_s)

    async def submit_block(
        self,
        block: bytes,
        fields: Sequence[tuple[str, str]],
        key: str,
        time_limit_s: float | None = None,
    ) -> PayloadRow:
        """Accept a payload whose files are one block (see ``small_files``). As ``submit``."""
        if (known := await self.store.by_key(key)) is not None:
            return known
        files = decode_files(block)
        if sum(len(file.content) for file in files) > self.limits.max_bytes:
            raise FilesTooLarge(self.limits.max_bytes)
        values: dict[str, list[str]] = {}
        for name, value in fields:
            values.setdefault(name, []).append(value)

        script = next((file.content for file in files if file.name == SCRIPT), None)
        if script is None:
            raise MissingScript(f"Missing {SCRIPT}")

        def write(workspace: Workspace) -> _Complete:
            workspace.write(files)
            wanted = files if wants_digests(values) else []
            digests = {file.name: hashlib.sha256(file.content).digest() for file in wanted}
            return self._complete(workspace, script[:MAX_CHECKED_BYTES], values, digests)

        is_small = _is_small(files)

        async def write_all(workspace: Workspace) -> _Complete:
            if is_small and self.ids.are_reserved:
                return await self._short.run(write, workspace)
            return await in_thread(write, workspace)

        return await self._accept(write_all, key, time_limit_s)

    async def _accept(
        self,
        receive: Callable[[Workspace], Awaitable[_Complete]],
        key: str | None,
        time_limit_s: float | None,
    ) -> PayloadRow:
        """Add a payload whose files ``receive`` writes to a workspace."""
        if not self.open or self.fitness.problem:
            return await self._known(key)
        name = str(uuid.uuid4())
        self.arriving.add(name)
        row: PayloadRow | None = None
        try:
            complete = await receive(self.workspaces.of(name))
            if self.records is not None:
                await in_thread(self.records.accept, _row(complete, name, key, time_limit_s))
            elif key is None:
                await in_thread(self.keyless.add, complete.payload_id)
            # The store does not suspend, so no cancellation separates the row from its files.
            row = await self._add(complete, name, key, time_limit_s)
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
            try:
                if row is None or row.uuid != name:
                    await in_thread(self.workspaces.discard, name)
            finally:
                self.arriving.discard(name)
        with logging_about(payload=row.id, key=key):
            logger.debug("Payload %d is %s", row.id, row.status)
        return row

    def _complete(
        self,
        workspace: Workspace,
        script: bytes,
        fields: Fields,
        digests: Mapping[str, bytes],
    ) -> _Complete:
        """Check a payload whose files have arrived. Blocks; for ``_accept``."""
        # The files are not flushed to the disk: after a power cut the server sends them again.
        reach(Point.CLIENT_FORM_WHOLE)
        wanted = _wanted(fields, self.offer)
        store_selection(workspace, read_selection(fields), digests)
        return _Complete(self.ids.take(), _check(script), wanted)

    async def payload_of(self, key: str) -> PayloadRow:
        """Return the payload of ``key``. If none has arrived yet, add one that never runs."""
        if (row := await self.store.by_key(key)) is not None:
            return row
        payload_id = await in_thread(self.ids.take)
        message = "Terminated before it arrived"
        await self.store.add_ended(payload_id, key, PayloadStatus.KILLED, message)
        # Not necessarily the added one: the submit may have arrived at the same time.
        return await self.store.by_key(key) or await self.store.get(payload_id)

    async def _add(
        self, complete: _Complete, name: str, key: str | None, time_limit_s: float | None
    ) -> PayloadRow:
        """Add the row, or return that of an earlier submit with the same key."""
        if not self.open or self.fitness.problem:
            return await self._known(key)
        if key and self.store.was_returned(key):
            raise AttemptReturned
        payload_id, refusal, wanted = complete
        try:
            row = await self.store.add(payload_id, name, key, refusal, time_limit_s, wanted)
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

        Raises ``AttemptReturned`` if it was given back, ``ClientStops`` or ``ClientUnfit`` if there
        is none.

        A server that repeats a submit must not be refused while its payload runs here.
        """
        row = await self.store.by_key(key) if key else None
        if row is None and key and self.store.was_returned(key):
            raise AttemptReturned
        if row is None and self.open:
            raise ClientUnfit(self.fitness.problem)
        if row is None:
            raise ClientStops("This client stops and takes no new payloads; use another one")
        return row


def _row(complete: _Complete, name: str, key: str | None, time_limit_s: float | None) -> PayloadRow:
    """Return the row that the store will have, for its record."""
    return PayloadRow(
        complete.payload_id,
        name,
        key,
        complete.refusal,
        time_limit_s,
        PayloadStatus.PREPARED,
        killed=False,
        exit_code=None,
        message="",
        ended_at=None,
        cpus=complete.wanted.cpus,
        memory_bytes=complete.wanted.memory_bytes,
        gpus=complete.wanted.gpus,
    )


def _wanted(fields: Fields, offer: Resources) -> Resources:
    """Return what a payload asks for. Raises ``BadRequest``, ``ClientTooSmall``."""
    try:
        wanted = resources_of(fields)
    except ValueError as error:
        raise BadRequest(f"Invalid cpus, memory or gpus: {error}") from error
    if not offer.hold(wanted):
        raise ClientTooSmall(wanted, offer)
    return wanted


def _is_small(files: Sequence[SmallFile]) -> bool:
    """Return whether the files can be written, and the script checked, in the event loop."""
    return (
        sum(len(file.content) for file in files) <= SMALL_BYTES
        and sum(1 + file.name.count("/") for file in files) <= SMALL_ENTRIES
        and all(len(file.content) <= SHORT_SCRIPT_BYTES for file in files if file.name == SCRIPT)
    )


def _check(script: bytes) -> str:
    """Return why a script is refused; empty if it is not. Portals send the same ones again."""
    return _check_known(script) if len(script) <= KNOWN_BYTES else str(check_script(script) or "")


@lru_cache(KNOWN_SCRIPTS)
def _check_known(script: bytes) -> str:
    return str(check_script(script) or "")
