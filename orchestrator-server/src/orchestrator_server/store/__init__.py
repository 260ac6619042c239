"""The jobs' database. All SQL of the server is in this package, and no policy."""

from orchestrator_server.store.claims import Claim, Offer, Waiting
from orchestrator_server.store.events import JobEvent, JobEvents
from orchestrator_server.store.jobs import MAX_PLACE, JobStore
from orchestrator_server.store.listing import NEWEST, Change, JobFilter, JobLists, Times
from orchestrator_server.store.opening import open_store
from orchestrator_server.store.outbox import Outbox
from orchestrator_server.store.schema import DatabaseError, Job, JobOptions
from orchestrator_server.store.usage import UserLimits

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
