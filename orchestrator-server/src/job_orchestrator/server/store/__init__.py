"""The jobs' database. All SQL of the server is in this package, and no policy."""

from job_orchestrator.server.store.sqlite.claims import Claim, Offer, Waiting
from job_orchestrator.server.store.sqlite.events import JobEvent, JobEvents
from job_orchestrator.server.store.sqlite.jobs import MAX_PLACE, JobStore
from job_orchestrator.server.store.sqlite.listing import NEWEST, Change, JobFilter, JobLists, Times
from job_orchestrator.server.store.sqlite.opening import open_store
from job_orchestrator.server.store.sqlite.outbox import Outbox
from job_orchestrator.server.store.sqlite.schema import DatabaseError, Job, JobOptions
from job_orchestrator.server.store.sqlite.usage import UserLimits

__all__ = [
    "MAX_PLACE",
    "NEWEST",
    "Change",
    "Claim",
    "DatabaseError",
    "Job",
    "JobEvent",
    "JobEvents",
    "JobFilter",
    "JobLists",
    "JobOptions",
    "JobStore",
    "Offer",
    "Outbox",
    "Times",
    "UserLimits",
    "Waiting",
    "open_store",
]
