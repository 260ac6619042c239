"""Talking to a jo-server from Python: submit jobs, wait for them, fetch what they made.

``AsyncClient`` is for asyncio programs, ``Client`` for all others; every failure is an
``ApiError``.
"""

from orchestrator_common.api.blocking import Client
from orchestrator_common.api.client import AsyncClient, LogStream
from orchestrator_common.api.connection import Trouble
from orchestrator_common.api.downloads import LocalStorageFailed
from orchestrator_common.api.errors import (
    AlreadyEnded,
    ApiError,
    ConnectionBroken,
    JobNotFound,
    MachineUnavailable,
    NotAJobServer,
    NotAuthorized,
    NotCompleted,
    NotEnded,
    OutputNotFound,
    QuotaExceeded,
    Refused,
    ServerBusy,
    ServerFailed,
    ServerUnavailable,
    ServerUnreachable,
    StorageOfServerFull,
    UnusableFiles,
)
from orchestrator_common.api.models import (
    Change,
    ComputeClient,
    Health,
    Identity,
    Job,
    JobDetail,
    Minute,
    Place,
    ResultFile,
    ResultFiles,
    Service,
    Step,
    Submitted,
)
from orchestrator_common.api.uploads import Files, Progress, Source
from orchestrator_common.status import JobStatus

__all__ = [
    "AlreadyEnded",
    "ApiError",
    "AsyncClient",
    "Change",
    "Client",
    "ComputeClient",
    "ConnectionBroken",
    "Files",
    "Health",
    "Identity",
    "Job",
    "JobDetail",
    "JobNotFound",
    "JobStatus",
    "LocalStorageFailed",
    "LogStream",
    "MachineUnavailable",
    "Minute",
    "NotAJobServer",
    "NotAuthorized",
    "NotCompleted",
    "NotEnded",
    "OutputNotFound",
    "Place",
    "Progress",
    "QuotaExceeded",
    "Refused",
    "ResultFile",
    "ResultFiles",
    "ServerBusy",
    "ServerFailed",
    "ServerUnavailable",
    "ServerUnreachable",
    "Service",
    "Source",
    "Step",
    "StorageOfServerFull",
    "Submitted",
    "Trouble",
    "UnusableFiles",
]
