"""Messages about a service: its health, and what jo-server says of users, services and clients."""

from datetime import datetime

import msgspec

from job_orchestrator.common.messages.explanation import LimitUse
from job_orchestrator.common.messages.resources import Resources


class Pong(msgspec.Struct, frozen=True, omit_defaults=True):
    """Answer of ``GET /`` to programs, with the paths of the pages for people."""

    message: str
    dashboard: str = ""
    api: str = ""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``GET /health`` of a service that can do its work."""

    version: str = ""
    status: str
    database: str = "ok"


class PersonalLimits(msgspec.Struct, frozen=True, kw_only=True):
    """Limits of a user over all services; ``jobs_left`` of ``jobs_per_hour`` are allowed now.

    ``use`` has all limits that concern the user, those in single services too, with their use.
    """

    active: int = 0
    max_runs: int | None = None
    jobs_per_hour: float | None = None
    jobs_left: int | None = None
    paused: bool = False
    use: list[LimitUse] = []


class Identity(msgspec.Struct, frozen=True):
    """The user that the server takes the caller for; ``user_id`` is None for an administrator.

    ``auth`` is False where the server requires no tokens; then every caller is an administrator,
    who has no ``limits``. ``name`` is that of a user of an issuer.
    """

    user_id: int | None = None
    admin: bool = False
    auth: bool = False
    limits: PersonalLimits | None = None
    name: str = ""


class User(msgspec.Struct, frozen=True):
    """A user of a trusted issuer, and the ``user_id`` of the user's jobs."""

    user_id: int
    name: str
    issuer: str
    subject: str
    groups: tuple[str, ...] = ()


class SignInIssuer(msgspec.Struct, frozen=True):
    """An issuer at which people sign in to the dashboard: its authorization endpoint (RFC 6749)."""

    url: str
    authorization_endpoint: str


class SignInOptions(msgspec.Struct, frozen=True):
    """Ways to sign in to the dashboard. Without ``issuers`` a token must be entered."""

    issuers: list[SignInIssuer] = []
    client_id: str = ""
    scope: str = ""


class SignInCode(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Authorization code of an issuer, to be exchanged for a token (RFC 6749 and 7636)."""

    issuer: str
    code: str
    code_verifier: str
    redirect_uri: str


class SignedIn(msgspec.Struct, frozen=True):
    """Token with which a person is signed in."""

    token: str


class UserList(msgspec.Struct, frozen=True):
    """Answer to a request for the users of issuers."""

    users: list[User]


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A service of the server: its limits, its current use and its state.

    ``state`` is ``ok``, ``degraded`` (some clients can't be used) or ``down``, for ``problem``.
    ``clients`` has upload URLs, none for users. ``active`` jobs count for the limits; ``running``
    and ``waiting`` are all that have not ended. A user may use idle slots up to
    ``runs_per_user_burst``. ``policy`` is the order of queued jobs: fair, fifo or priority.
    """

    name: str
    runs_per_user: int
    max_runs: int
    max_attempts: int
    time_limit_s: float | None = None
    active: int = 0
    queued: int = 0
    state: str = "ok"
    problem: str = ""
    clients: list[str] = []
    running: int = 0
    waiting: int = 0
    policy: str = "fair"
    runs_per_user_burst: int | None = None
    paused: bool = False


class ServiceList(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``GET /services``: the services of the server.

    ``use`` has the limits over all services and their use: for administrators, also of each group.
    """

    services: list[Service]
    use: list[LimitUse] = []


class PauseList(msgspec.Struct, frozen=True, kw_only=True):
    """The services and users whose queued jobs don't start."""

    services: list[str] = []
    users: list[int] = []


class ComputeClient(msgspec.Struct, frozen=True, kw_only=True):
    """A jo-client, as the server sees it; values that the server does not know are None.

    ``state`` is ``connected``, ``polled`` (the client has no event stream), ``unreachable`` or
    ``unknown``. ``cpu`` and ``memory`` are per cent of its machine. ``jobs`` counts the jobs that
    the server has given to it, ``running`` and ``waiting`` what the client itself reports.
    ``warnings`` are about settings of the client, also if they contradict those of the server.
    ``resources`` is what it has for jobs that ask for some, ``resources_used`` what these ask for.
    A client that has ``registered`` itself has its name as ``url``, and was connected until
    ``seen_at``. A ``drained`` one gets no jobs, because an administrator wants that.
    """

    url: str
    registered: bool = False
    drained: bool = False
    seen_at: datetime | None = None
    services: list[str] = []
    state: str = "unknown"
    problem: str = ""
    slots: int | None = None
    running: int | None = None
    waiting: int | None = None
    cpu: float | None = None
    memory: float | None = None
    jobs: int = 0
    version: str | None = None
    draining: bool = False
    warnings: list[str] = []
    resources: Resources | None = None
    resources_used: Resources | None = None


class ClientList(msgspec.Struct, frozen=True, kw_only=True):
    """Answer of ``GET /clients``: the clients of the server."""

    clients: list[ComputeClient]


class Minute(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of one minute.

    ``failed`` counts Failed and Invalid jobs, ``cancelled`` Killed ones. The waiting times are
    those of the jobs that started in this minute, None if none did.
    """

    at: datetime
    submitted: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    wait_s_mean: float | None = None
    wait_s_max: float | None = None


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Statistics of the last 60 minutes, oldest first.

    The waiting times include those of the jobs that still wait, whose number is ``waiting``.
    """

    minutes: list[Minute]
    waiting: int = 0
    wait_s_mean: float | None = None
    wait_s_max: float | None = None
