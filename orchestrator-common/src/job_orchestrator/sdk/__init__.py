"""Client library for jo-server: submit jobs, wait for them, download their results.

``AsyncClient`` is for asyncio programs, ``Client`` for all others. Every failure of a call is an
``ApiError``.
"""

from job_orchestrator.common.messages.explanation import (
    ClientForJob,
    Explanation,
    LimitUse,
    UserInLine,
)
from job_orchestrator.common.messages.jobs import (
    Job,
    JobDetail,
    QueuePosition,
    ResultFile,
    ResultFiles,
    Step,
)
from job_orchestrator.common.messages.resources import Resources
from job_orchestrator.common.messages.service import (
    ComputeClient,
    Identity,
    Minute,
    PauseList,
    Service,
    User,
)
from job_orchestrator.common.status import JobStatus
from job_orchestrator.sdk.blocking import Client
from job_orchestrator.sdk.client import AsyncClient, LogStream, ResultKind
from job_orchestrator.sdk.connection import Trouble
from job_orchestrator.sdk.errors import (
    AlreadyEnded,
    ApiError,
    ConnectionBroken,
    JobNotFound,
    LocalStorageFailed,
    MachineUnavailable,
    NotAJobServer,
    NotAuthorized,
    NotCompleted,
    NotEnded,
    OutputNotFound,
    QuotaExceeded,
    Refused,
    ResultsDamaged,
    ServerBusy,
    ServerFailed,
    ServerUnavailable,
    ServerUnreachable,
    StorageOfServerFull,
    UnusableFiles,
)
from job_orchestrator.sdk.models import Change, Health, Submitted
from job_orchestrator.sdk.uploads import Files, Progress, Source

__all__ = [
    "AlreadyEnded",
    "ApiError",
    "AsyncClient",
    "Change",
    "Client",
    "ClientForJob",
    "ComputeClient",
    "ConnectionBroken",
    "Explanation",
    "Files",
    "Health",
    "Identity",
    "Job",
    "JobDetail",
    "JobNotFound",
    "JobStatus",
    "LimitUse",
    "LocalStorageFailed",
    "LogStream",
    "MachineUnavailable",
    "Minute",
    "NotAJobServer",
    "NotAuthorized",
    "NotCompleted",
    "NotEnded",
    "OutputNotFound",
    "PauseList",
    "Progress",
    "QueuePosition",
    "QuotaExceeded",
    "Refused",
    "Resources",
    "ResultFile",
    "ResultFiles",
    "ResultKind",
    "ResultsDamaged",
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
    "User",
    "UserInLine",
]
