"""Settings of each service, such as ``SERVICE_<NAME>_UPLOAD_URL``.

A misspelled limit would not limit anything, and nobody would notice before it is needed. Therefore
an unknown variable of a configured service stops the start.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from job_orchestrator.common.config.kinds import Choice, Duration, Integer, Number, Size, Urls
from job_orchestrator.common.config.reader import SettingsReader
from job_orchestrator.common.config.settings import (
    DefaultInWords,
    all_settings,
    nearest,
    no_default,
    setting,
    setting_of,
)
from job_orchestrator.common.errors import StartupError
from job_orchestrator.common.messages.resources import Resources
from job_orchestrator.server.model import ClientUrls, Order, Service

PREFIX = "SERVICE_"

_MAX_COUNT = 1_000_000
_REQUIRED = DefaultInWords[tuple[str, ...]]("required for configured clients", tuple)


@dataclass(frozen=True, kw_only=True)
class ServiceSettings:
    """Settings of one service. Their variables begin with ``SERVICE_<NAME>_``."""

    upload_urls: tuple[str, ...] = setting(
        "UPLOAD_URL",
        Urls(),
        default=_REQUIRED,
        help="URL that jobs are sent to: http://HOST:9000/submit; several clients: comma-separated",
    )
    download_urls: tuple[str, ...] = setting(
        "DOWNLOAD_URL",
        Urls(),
        default=_REQUIRED,
        help="URL that results are fetched from: http://HOST:9000/retrieve; as many as upload URLs",
    )
    terminate_urls: tuple[str, ...] = setting(
        "TERMINATE_URL",
        Urls(),
        default=DefaultInWords("/kill on the host of the upload URL", tuple),
        help="URL that terminates payloads: http://HOST:9000/kill; as many as upload URLs",
    )
    registered: bool = setting(
        "CLIENTS",
        Choice({"configured": False, "registered": True}),
        default="configured",
        help="Whether only the clients at the URLs run its jobs (configured), or also clients that"
        " register themselves (registered)",
    )
    runs_per_user: int = setting(
        "RUNS_PER_USER",
        Integer(1, _MAX_COUNT),
        default="5",
        help="Maximum number of active jobs of one user",
    )
    runs_per_user_burst: int = setting(
        "RUNS_PER_USER_BURST",
        Integer(0, _MAX_COUNT),
        default="0",
        help="Active jobs up to which one user may use slots that would be idle; 0: RUNS_PER_USER",
    )
    max_runs: int = setting(
        "MAX_RUNS",
        Integer(1, _MAX_COUNT),
        default="10",
        help="Maximum number of active jobs of all users together",
    )
    max_attempts: int = setting(
        "MAX_ATTEMPTS",
        Integer(1, _MAX_COUNT),
        default="3",
        help="Number of failed attempts to run a job on a client after which the job is Failed",
    )
    time_limit_s: float = setting(
        "TIME_LIMIT",
        Duration(),
        default=no_default(0.0),
        help="Maximum run time of a job; a job can ask for less with time_limit",
    )
    cpus: float = setting(
        "CPUS",
        Number(10_000.0),
        default=no_default(0.0),
        help="CPUs of a job that does not ask for a number; 0: it only takes a slot",
    )
    memory_bytes: int = setting(
        "MEMORY",
        Size(),
        default=no_default(0),
        help="Memory of a job that does not ask for an amount, such as 2GB",
    )
    gpus: int = setting(
        "GPUS",
        Integer(0, 1000),
        default=no_default(0),
        help="GPUs of a job that does not ask for a number",
    )
    max_cpus: float = setting(
        "MAX_CPUS",
        Number(10_000.0),
        default=no_default(0.0),
        help="Maximum number of CPUs that a job may ask for",
    )
    max_memory_bytes: int = setting(
        "MAX_MEMORY",
        Size(),
        default=no_default(0),
        help="Maximum memory that a job may ask for",
    )
    max_gpus: int = setting(
        "MAX_GPUS",
        Integer(0, 1000),
        default=no_default(0),
        help="Maximum number of GPUs that a job may ask for",
    )
    weight: int = setting(
        "WEIGHT",
        Integer(1, 1000),
        default="1",
        help="Share of the slots of clients that run other services as well, relative to these",
    )
    lost_after_s: float = setting(
        "LOST_AFTER",
        Duration(),
        default=DefaultInWords("LOST_AFTER of jo-server", lambda: 0.0),
        help="Time without an answer from a client after which jobs of the service run elsewhere;"
        " hours for a batch system, whose jobs go on while jo-client is restarted",
    )
    order: Order = setting(
        "POLICY",
        Choice({order.value: order for order in Order}),
        default="fair",
        help="Order of queued jobs of all users: fair, fifo, priority",
    )


SERVICE_SETTINGS = all_settings(ServiceSettings)
SUFFIXES = tuple(setting.name for setting in SERVICE_SETTINGS)

# The shortest name: MAX_CPUS is a setting, and so is CPUS.
_VARIABLE = re.compile(rf"{PREFIX}(?P<name>.+?)_(?:{'|'.join(SUFFIXES)})")
_KUBERNETES = re.compile(
    r"PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?|SERVICE_(HOST|PORT(_\w+)?)"
)
"""Variables that Kubernetes and Docker links set for a network service named SERVICE_<NAME>."""


def read_services(reader: SettingsReader) -> dict[str, Service]:
    """Read all services of the environment, by lower-case name. Raises ``StartupError``."""
    return {name.lower(): _read_service(reader, name) for name in _names(reader.environment)}


def misspelled_service_variables(environment: Mapping[str, str]) -> Iterator[str]:
    """Warn of variables that are almost those of a service that has no other variables."""
    for variable in sorted(environment):
        if not variable.startswith(PREFIX) or _VARIABLE.fullmatch(variable):
            continue
        words = variable.removeprefix(PREFIX).split("_")
        for begin in range(1, len(words)):
            if meant := nearest("_".join(words[begin:]), SUFFIXES):
                name = "_".join(words[:begin])
                yield f"{variable} is ignored; did you mean {PREFIX}{name}_{meant}?"
                break


def _names(environment: Mapping[str, str]) -> list[str]:
    """List the services that have a variable, as the environment spells their names.

    Raises ``StartupError`` if one of them also has an unknown variable.
    """
    matches = [_VARIABLE.fullmatch(variable) for variable in environment]
    names = sorted({match["name"] for match in matches if match})
    for variable in sorted(environment):
        if _VARIABLE.fullmatch(variable):
            continue
        if (name := _service_of(variable, names)) is not None:
            suffix = variable.removeprefix(f"{PREFIX}{name}_")
            if not _KUBERNETES.fullmatch(suffix):
                raise StartupError(
                    f"{variable} is not a setting of a service; {_hint(name, suffix)}"
                )
    return names


def _hint(name: str, suffix: str) -> str:
    if meant := nearest(suffix, SUFFIXES):
        return f"did you mean {PREFIX}{name}_{meant}?"
    return "these settings end in " + ", ".join(f"_{known}" for known in SUFFIXES)


def _service_of(variable: str, names: list[str]) -> str | None:
    """Find the service of a variable: of ``A`` and ``A_B`` the one with the longer name."""
    candidates = [name for name in names if variable.startswith(f"{PREFIX}{name}_")]
    return max(candidates, key=len, default=None)


def _read_service(reader: SettingsReader, name: str) -> Service:
    prefix = f"{PREFIX}{name}_"
    settings = reader.read_all(ServiceSettings, prefix)
    return Service(
        name=name.lower(),
        clients=_client_urls(reader, prefix, settings),
        runs_per_user=settings.runs_per_user,
        max_runs=settings.max_runs,
        max_attempts=settings.max_attempts,
        time_limit_s=settings.time_limit_s or None,
        order=settings.order,
        burst=settings.runs_per_user_burst,
        weight=settings.weight,
        registered=settings.registered,
        lost_after_s=settings.lost_after_s or None,
        resources=Resources(settings.cpus, settings.memory_bytes, settings.gpus),
        max_resources=Resources(settings.max_cpus, settings.max_memory_bytes, settings.max_gpus),
    )


def _client_urls(
    reader: SettingsReader, prefix: str, settings: ServiceSettings
) -> tuple[ClientUrls, ...]:
    """Pair the URLs of each client. Raises ``SettingError`` if the lists differ in length."""
    uploads, downloads = settings.upload_urls, settings.download_urls
    upload_url = setting_of(ServiceSettings, "upload_urls")
    if not uploads and not downloads and settings.registered:
        return ()
    if not uploads and not downloads:
        allowed = f"the URL of the service's client, unless {prefix}CLIENTS is registered"
        raise reader.refusal(upload_url, allowed, prefix)
    clients = len(uploads) or len(downloads)
    for attribute, urls, required in (
        ("upload_urls", uploads, True),
        ("download_urls", downloads, True),
        ("terminate_urls", settings.terminate_urls, False),
    ):
        if len(urls) != clients and (urls or required):
            allowed = "a URL" if clients == 1 else f"{clients} URLs, separated by commas"
            allowed += ": one for each client of the service"
            raise reader.refusal(setting_of(ServiceSettings, attribute), allowed, prefix)
    terminates = settings.terminate_urls or tuple(_origin(url) for url in uploads)
    return tuple(
        ClientUrls(
            _with_path(up, "/submit"), _with_path(down, "/retrieve"), _with_path(end, "/kill")
        )
        for up, down, end in zip(uploads, downloads, terminates, strict=True)
    )


def _origin(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}"


def _with_path(url: str, default: str) -> str:
    """Add the documented path to a URL that has none."""
    return url if urlsplit(url).path.strip("/") else url + default
