"""Settings of jo-server, read once at its start."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

from job_orchestrator.common.config import shared
from job_orchestrator.common.config.kinds import (
    Choice,
    Duration,
    FilePath,
    HostPatterns,
    Integer,
    Secret,
    Size,
    Switch,
    Urls,
)
from job_orchestrator.common.config.reader import SettingsReader, remove_secrets
from job_orchestrator.common.config.settings import (
    all_settings,
    misspelled_variables,
    no_default,
    setting,
    setting_of,
)
from job_orchestrator.common.config.units import size_text
from job_orchestrator.common.errors import StartupError
from job_orchestrator.common.protocol.small_files import MAX_CONTENT_BYTES
from job_orchestrator.common.runtime import fault_injection as faults
from job_orchestrator.server.model import MAX_PRIORITY, CallbackRules, Rate, Service
from job_orchestrator.server.settings.kinds import Names, Origins, SigningKey, Word
from job_orchestrator.server.settings.services import PREFIX as SERVICE_PREFIX
from job_orchestrator.server.settings.services import misspelled_service_variables, read_services

_LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of jo-server, checked. Times are in seconds, sizes in bytes; limits of 0: none."""

    host: str = shared.host()
    port: int = shared.port("5000")
    db_path: Path = setting(
        "DB_PATH",
        FilePath(),
        default="./db.sqlite",
        help="SQLite database file; its folder must exist",
    )
    data_path: Path = setting(
        "DATA_PATH", FilePath(), default="./data", help="Folder of the jobs' files"
    )
    max_age_s: float = setting(
        "MAX_AGE",
        Duration(),
        default="2d",
        help="Time that the files of a job are kept after its end",
    )
    max_upload_bytes: int = setting(
        "MAX_UPLOAD_SIZE",
        Size(minimum=1, zero=False),
        default="400MB",
        help="Maximum size of all files of a job together",
    )
    inline_limit: int = setting(
        "INLINE_LIMIT",
        Size(maximum=MAX_CONTENT_BYTES),
        default="64kB",
        help="Size up to which inputs, and results, are stored in the database; 0: never",
    )
    max_result_bytes: int = setting(
        "MAX_RESULT_SIZE",
        Size(),
        default=no_default(0),
        help="Maximum size of the ZIP with a job's results",
    )
    lost_after_s: float = setting(
        "LOST_AFTER",
        Duration(),
        default="5m",
        help="Time without an answer from a client after which its jobs run elsewhere",
    )
    forget_clients_after_s: float = setting(
        "FORGET_CLIENTS_AFTER",
        Duration(),
        default="1d",
        help="Time after which a registered client without jobs is forgotten if it stays away",
    )
    client_token: str | None = setting(
        "CLIENT_TOKEN",
        Secret(),
        default=no_default(None),
        help="Token that is sent to jo-client; jo-client must have the same value",
        secret=True,
    )
    api_tokens_file: Path | None = setting(
        "API_TOKENS_FILE",
        FilePath(),
        default=no_default(None),
        help="File of the API tokens; if not set, requests need no token",
    )
    oidc_issuers: tuple[str, ...] = setting(
        "OIDC_ISSUERS",
        Urls(),
        default=no_default(()),
        help="Issuers (OpenID Connect) whose tokens are accepted, comma-separated",
    )
    oidc_audience: frozenset[str] = setting(
        "OIDC_AUDIENCE",
        Names(),
        default=no_default(frozenset()),
        help="Values of the claim aud that tokens of issuers must have, comma-separated",
    )
    oidc_name_claim: str = setting(
        "OIDC_NAME_CLAIM",
        Word(),
        default="preferred_username",
        help="Claim with the name by which a user is shown",
    )
    oidc_groups_claim: str = setting(
        "OIDC_GROUPS_CLAIM",
        Word(),
        default="groups",
        help="Claim with the groups of a user",
    )
    oidc_admin_groups: frozenset[str] = setting(
        "OIDC_ADMIN_GROUPS",
        Names(),
        default=no_default(frozenset()),
        help="Groups whose members are administrators, comma-separated",
    )
    oidc_client_id: str = setting(
        "OIDC_CLIENT_ID",
        Word(),
        default=no_default(""),
        help="Client of the issuers by which people sign in to the dashboard",
    )
    oidc_client_secret: str = setting(
        "OIDC_CLIENT_SECRET",
        Secret(),
        default=no_default(""),
        help="Secret of that client, if it is not a public one",
        secret=True,
    )
    oidc_scope: str = setting(
        "OIDC_SCOPE",
        Word(),
        default="openid profile",
        help="Scope that is asked for at a sign-in, with openid",
    )
    allowed_hosts: tuple[str, ...] = shared.allowed_hosts("API_TOKENS_FILE")
    cors_origins: frozenset[str] = setting(
        "CORS_ORIGINS",
        Origins(),
        default=no_default(frozenset()),
        help="Origins of web pages that may call from a browser, comma-separated; or *",
    )
    callback_allow: tuple[str, ...] = setting(
        "CALLBACK_ALLOW",
        HostPatterns(),
        default=no_default(()),
        help="Hosts that callback_url may name, comma-separated; needs CALLBACK_SECRET",
    )
    callback_allow_private: bool = setting(
        "CALLBACK_ALLOW_PRIVATE",
        Switch(),
        default="0",
        help="1: callbacks may go to addresses that are not public",
    )
    callback_key: bytes = setting(
        "CALLBACK_SECRET",
        SigningKey(),
        default=no_default(b""),
        help="Key that signs callbacks: whsec_ and base64, or any secret",
        secret=True,
    )
    metrics_open: bool = setting(
        "METRICS_OPEN", Switch(), default="0", help="1: /metrics needs no token"
    )
    max_queued_per_user: int = setting(
        "MAX_QUEUED_PER_USER",
        Integer(0, 1_000_000),
        default="0",
        help="Maximum number of queued jobs of one user; 0: no limit",
    )
    max_stored_per_user: int = setting(
        "MAX_STORED_PER_USER",
        Size(),
        default="0",
        help="Maximum size of all files that are kept for one user; 0: no limit",
    )
    policy_file: Path | None = setting(
        "POLICY_FILE",
        FilePath(),
        default=no_default(None),
        help="TOML file with groups, weights and limits of users; reloaded when it changes",
    )
    max_priority: int = setting(
        "MAX_PRIORITY",
        Integer(-MAX_PRIORITY, MAX_PRIORITY),
        default=str(MAX_PRIORITY),
        help="Highest priority that a user with a token may ask for",
    )
    max_runs_per_user: int = setting(
        "MAX_RUNS_PER_USER",
        Integer(0, 1_000_000),
        default="0",
        help="Maximum number of active jobs of one user in all services; 0: no limit",
    )
    total_max_runs: int = setting(
        "TOTAL_MAX_RUNS",
        Integer(0, 1_000_000),
        default="0",
        help="Maximum number of active jobs of all users and services; 0: no limit",
    )
    borrow_reserve: int = setting(
        "BORROW_RESERVE",
        Integer(0, 1_000_000),
        default="0",
        help="Free slots of each service that nobody may borrow (RUNS_PER_USER_BURST)",
    )
    jobs_per_hour: int = setting(
        "JOBS_PER_HOUR",
        Integer(0, 1_000_000),
        default="0",
        help="Jobs of one user in an hour, on average; 0: no limit",
    )
    jobs_per_hour_burst: int = setting(
        "JOBS_PER_HOUR_BURST",
        Integer(0, 1_000_000),
        default="0",
        help="Jobs of one user in a row, before the average holds; 0: JOBS_PER_HOUR",
    )
    refuse_beyond_rate: bool = setting(
        "RATE_LIMIT",
        Choice({"wait": False, "refuse": True}),
        default="wait",
        help="Jobs beyond JOBS_PER_HOUR wait, or their uploads are refused: wait, refuse",
    )
    fair_half_life_s: float = setting(
        "FAIR_HALF_LIFE",
        Duration(),
        default="7d",
        help="Time after which a used slot-second counts half; 0: only active jobs count",
    )
    priority_ageing_s: float = setting(
        "PRIORITY_AGEING",
        Duration(),
        default="1h",
        help="Waiting time that counts like one more priority; 0: priorities are strict",
    )
    min_upload_rate: int = shared.min_upload_rate()
    max_connections_per_peer: int = shared.max_connections_per_peer("4000")
    log_level: str = shared.log_level()
    log_format: str = shared.log_format()

    services: Mapping[str, Service]
    """By lower-case name."""
    warnings: tuple[str, ...]
    """Messages about settings that are misspelled, or contradict each other."""

    @property
    def requires_tokens(self) -> bool:
        """True if requests need a token."""
        return self.api_tokens_file is not None or bool(self.oidc_issuers)

    @property
    def rate(self) -> Rate | None:
        """Limit of the jobs of one user by time; None if there is none."""
        if not self.jobs_per_hour:
            return None
        return Rate(self.jobs_per_hour, self.jobs_per_hour_burst or self.jobs_per_hour)

    @property
    def callback_rules(self) -> CallbackRules:
        """Rules for the URLs of callbacks."""
        return CallbackRules(self.callback_allow, self.callback_allow_private)


SETTINGS = all_settings(Settings)


def settings_of_process(flags: Mapping[str, str | None]) -> Settings:
    """Read the settings of this process, and arm its fault points. Raises ``StartupError``.

    Afterwards the environment has no secrets, which child processes would inherit.
    """
    faults.arm(os.environ)
    settings = read_settings(os.environ, flags)
    remove_secrets(os.environ, SETTINGS)
    return settings


def paths_of_process(flags: Mapping[str, str | None]) -> tuple[Path, Path]:
    """Read DB_PATH and DATA_PATH of this process. Raises ``StartupError``."""
    reader = SettingsReader(os.environ, flags)
    db_path: Path = reader.read(setting_of(Settings, "db_path"))
    data_path: Path = reader.read(setting_of(Settings, "data_path"))
    return db_path, data_path


def services_of_process(flags: Mapping[str, str | None]) -> Mapping[str, Service]:
    """Read the services of this process, and arm its fault points. Raises ``StartupError``."""
    faults.arm(os.environ)
    return read_services(SettingsReader(os.environ, flags))


def tokens_file_of_process(flags: Mapping[str, str | None]) -> Path:
    """Read API_TOKENS_FILE of this process. Raises ``StartupError`` if it is not set."""
    reader = SettingsReader(os.environ, flags)
    tokens_file = setting_of(Settings, "api_tokens_file")
    path: Path | None = reader.read(tokens_file)
    if path is None:
        raise reader.refusal(tokens_file, "the file that tokens are kept in")
    return path


def read_settings(environment: Mapping[str, str], flags: Mapping[str, str | None]) -> Settings:
    """Read and check all settings. Raises ``StartupError`` for the first one that is wrong."""
    reader = SettingsReader(environment, flags)
    settings = reader.read_all(
        Settings,
        services=read_services(reader),
        warnings=(
            *misspelled_variables(environment, SETTINGS),
            *misspelled_service_variables(environment),
        ),
    )
    settings = replace(settings, warnings=(*settings.warnings, *_contradictions(settings)))
    if settings.callback_allow and not settings.callback_key:
        raise reader.refusal(
            setting_of(Settings, "callback_key"),
            "the key that signs callbacks, because CALLBACK_ALLOW is set",
        )
    if settings.oidc_issuers and not settings.oidc_audience:
        raise reader.refusal(
            setting_of(Settings, "oidc_audience"),
            "the value that the claim aud of a token must have, because OIDC_ISSUERS is set:"
            " without it, a token that was made for any other program would be accepted",
        )
    for url in settings.oidc_issuers:
        if urlsplit(url).scheme != "https" and urlsplit(url).hostname not in _LOCAL:
            raise reader.refusal(
                setting_of(Settings, "oidc_issuers"),
                "an https:// URL: the keys that are fetched from it decide who is admitted",
            )
    if not settings.services:
        problem = (
            "No services configured: set SERVICE_<NAME>_UPLOAD_URL and SERVICE_<NAME>_DOWNLOAD_URL"
        )
        raise StartupError(". ".join((problem, *settings.warnings)))
    return settings


def _contradictions(settings: Settings) -> Iterator[str]:
    """Yield a message for each pair of settings of which one makes the other ineffective."""
    if 0 < settings.max_stored_per_user < settings.max_upload_bytes:
        yield (
            f"MAX_STORED_PER_USER ({size_text(settings.max_stored_per_user)}) is less than"
            f" MAX_UPLOAD_SIZE ({size_text(settings.max_upload_bytes)}): no user can send a job of"
            " that size"
        )
    for service in settings.services.values():
        if 0 < service.burst <= service.runs_per_user:
            prefix = f"{SERVICE_PREFIX}{service.name.upper()}_RUNS_PER_USER"
            yield (
                f"{prefix}_BURST ({service.burst}) is not more than {prefix}"
                f" ({service.runs_per_user}): nobody can borrow slots"
            )
    if settings.callback_key and not settings.callback_allow:
        yield "CALLBACK_SECRET is set and CALLBACK_ALLOW is not: there are no callbacks"
    if settings.callback_allow_private and not settings.callback_allow:
        yield "CALLBACK_ALLOW_PRIVATE is set and CALLBACK_ALLOW is not: there are no callbacks"
