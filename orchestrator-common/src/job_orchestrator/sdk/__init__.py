"""Talking to a jo-server from Python: submit jobs, wait for them, fetch what they made.

``AsyncClient`` is for asyncio programs, ``Client`` for all others; every failure is an
``ApiError``.
"""

from job_orchestrator.common.status import JobStatus
from job_orchestrator.sdk.blocking import Client
from job_orchestrator.sdk.client import AsyncClient, LogStream
from job_orchestrator.sdk.connection import Trouble
from job_orchestrator.sdk.downloads import LocalStorageFailed
from job_orchestrator.sdk.errors import (
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
from job_orchestrator.sdk.models import (
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
from job_orchestrator.sdk.uploads import Files, Progress, Source

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
