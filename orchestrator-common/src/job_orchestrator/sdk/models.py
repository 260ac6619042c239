"""Answers of jo-server as the client library returns them.

Most of them are the messages themselves (``job_orchestrator.common.messages``); two carry more than
the server sends. Unknown fields are ignored; times are aware UTC.
"""

from collections.abc import Sequence
from typing import TypeVar

import msgspec

from job_orchestrator.common.messages import service
from job_orchestrator.common.messages.jobs import ArrayIds, Job, JobAnswer
from job_orchestrator.common.messages.service import ComputeClient, Service
from job_orchestrator.sdk.errors import NotAJobServer

T = TypeVar("T")


class Submitted(JobAnswer, frozen=True):
    """Answer to a submit or a cancel: the job's id and status, and a message.

    ``repeated`` is True if the job existed already, from an earlier submit with the same key.
    ``array`` is set if an array was submitted; ``id`` is then also that of the array.
    """

    repeated: bool = False
    array: ArrayIds | None = None

    @property
    def ids(self) -> Sequence[int]:
        """Ids of all jobs that were submitted: those of the tasks of an array, in order."""
        return [self.id] if self.array is None else range(self.array.first, self.array.last + 1)


class Health(service.Health, frozen=True, kw_only=True):
    """State of a server that can do its work, and its ``version``.

    ``ahead_s`` is the difference between the server's clock and the local one, in seconds, exact to
    about one second: positive if the server's clock is ahead, None if the server sends no time.
    """

    ahead_s: float | None = None


Change = Job | list[Service] | list[ComputeClient]
"""Content of one event: a job that has changed, all services, or all compute clients."""


def decode(body: bytes | str, kind: type[T], url: str) -> T:
    """Read an answer of the server at ``url``. Raises ``NotAJobServer`` if it is not a ``kind``."""
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise NotAJobServer(
            f"{url} sent an answer of an unexpected form ({error}). Is this the URL of a jo-server,"
            " and is the server's version at least that of this program?"
        ) from error
