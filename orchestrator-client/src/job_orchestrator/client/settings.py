"""Settings of jo-client, read once at its start."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from job_orchestrator.client.executors.batch.settings import (
    DEFAULT_SLOTS,
    BatchSettings,
    check_executor,
    command_environment,
)
from job_orchestrator.client.executors.local.settings import ExecutionSettings, check_users
from job_orchestrator.common.config import shared
from job_orchestrator.common.config.kinds import (
    Duration,
    FilePath,
    Integer,
    Kind,
    NotAllowed,
    Number,
    Secret,
    Size,
    Urls,
)
from job_orchestrator.common.config.reader import SettingsReader, remove_secrets
from job_orchestrator.common.config.settings import (
    DefaultInWords,
    all_settings,
    group,
    misspelled_variables,
    no_default,
    setting,
    setting_of,
)
from job_orchestrator.common.protocol.tunnel import MAX_NAME
from job_orchestrator.common.runtime import fault_injection as faults

MIN_DEFAULT_SLOTS = 10
"""With it the default quota of five jobs for each of two users fits on a client with few CPUs."""

_INDEX = re.compile(r"0|[1-9]\d{0,3}", re.ASCII)
MAX_WORDS = 50
_WORD = re.compile(r"[a-z0-9][a-z0-9:._-]{0,62}")
_CLIENT_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{MAX_NAME - 1}}}")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class VariableNames(Kind[tuple[str, ...]]):
    """Names of environment variables, separated by commas."""

    metavar = "NAME,…"

    def parse(self, text: str) -> tuple[str, ...]:
        """Split the list."""
        names = tuple(name.strip() for name in text.split(",") if name.strip())
        if not all(_VARIABLE.fullmatch(name) for name in names):
            raise NotAllowed("names of variables, separated by commas")
        return names


@dataclass(frozen=True)
class GpuIndices(Kind[tuple[int, ...]]):
    """Indices of GPUs, separated by commas, or ``none``."""

    metavar = "INDEX,…"

    def parse(self, text: str) -> tuple[int, ...]:
        """Split the list."""
        if text.lower() == "none":
            return ()
        parts = [part.strip() for part in text.split(",")]
        if not all(_INDEX.fullmatch(part) for part in parts) or len(set(parts)) < len(parts):
            raise NotAllowed("different indices of GPUs such as 0,1, or none")
        return tuple(map(int, parts))


@dataclass(frozen=True)
class ServerAddress(Kind[str | None]):
    """URL of a server."""

    metavar = "URL"

    def parse(self, text: str) -> str:
        """Return the URL, without a slash at its end."""
        urls = Urls().parse(text)
        if len(urls) != 1:
            raise NotAllowed("one http:// or https:// URL")
        return urls[0]


@dataclass(frozen=True)
class Words(Kind[tuple[str, ...]]):
    """Words of letters, digits and some signs, separated by commas."""

    metavar = "WORD,…"

    def parse(self, text: str) -> tuple[str, ...]:
        """Split the list, in lower case and without repetitions."""
        words = tuple(part.strip().lower() for part in text.split(",") if part.strip())
        if not all(_WORD.fullmatch(word) for word in words) or len(words) > MAX_WORDS:
            raise NotAllowed(
                f"at most {MAX_WORDS} words of letters, digits and : . _ -, separated by commas"
            )
        return tuple(dict.fromkeys(words))


@dataclass(frozen=True)
class ClientName(Kind[str | None]):
    """Name of a client, which is unique at its server."""

    metavar = "NAME"

    def parse(self, text: str) -> str:
        """Return the name."""
        if not _CLIENT_NAME.fullmatch(text):
            raise NotAllowed(
                f"at most {MAX_NAME} letters, digits, dots, hyphens and underscores, with a letter"
                " or digit first"
            )
        return text


@dataclass(frozen=True, kw_only=True)
class RegistrationSettings:
    """Settings of a client that registers itself at a server, instead of listening on a port."""

    server_url: str | None = setting(
        "SERVER_URL",
        ServerAddress(),
        default=no_default(None),
        help="URL of a jo-server to register at, such as https://jobs.example.org; the client then"
        " dials it and listens on no port",
    )
    server_token: str | None = setting(
        "SERVER_TOKEN",
        Secret(),
        default=no_default(None),
        help="Token of this client, from jo-server token create --client",
        secret=True,
    )
    services: tuple[str, ...] = setting(
        "SERVICES",
        Words(),
        default=DefaultInWords("all that the token permits", tuple),
        help="Services whose jobs a registered client runs, comma-separated",
    )
    name: str | None = setting(
        "CLIENT_NAME",
        ClientName(),
        default=DefaultInWords("name of the machine and four digits", lambda: None),
        help="Name of a registered client, different from those of all others",
    )
    idle_exit_s: float = setting(
        "IDLE_EXIT",
        Duration(),
        default="0",
        help="Time without anything to do after which a registered client ends; 0: never",
    )
    lifetime_s: float = setting(
        "LIFETIME",
        Duration(),
        default="0",
        help="Time after its start at which a registered client ends as on SIGTERM; 0: never",
    )


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of jo-client, checked. Times are in seconds, sizes in bytes."""

    host: str = shared.host()
    port: int = shared.port("9000")
    data_path: Path = setting(
        "DATA_PATH", FilePath(), default="./data", help="Folder of the payloads' files"
    )
    max_age_s: float = setting(
        "MAX_AGE",
        Duration(),
        default="2d",
        help="Time that results are kept if jo-server does not fetch them",
    )
    max_upload_bytes: int = setting(
        "MAX_UPLOAD_SIZE",
        Size(minimum=1, zero=False),
        default="400MB",
        help="Maximum size of all files of a payload together",
    )
    max_result_bytes: int = setting(
        "MAX_RESULT_SIZE",
        Size(),
        default=no_default(0),
        help="Maximum size of the ZIP with a payload's results",
    )
    slots: int = setting(
        "SLOTS",
        Integer(1, 100_000),
        default=DefaultInWords(
            "number of CPUs, at least 10; 100 with a batch system",
            lambda: max(MIN_DEFAULT_SLOTS, os.cpu_count() or 1),
        ),
        help="Number of payloads that run at the same time, or are in the queue of a batch system",
    )
    cpus: float | None = setting(
        "CPUS",
        Number(100_000.0),
        default=DefaultInWords("those that jo-client may use", lambda: None),
        help="CPUs for payloads that ask for some",
    )
    memory_bytes: int | None = setting(
        "MEMORY",
        Size(),
        default=DefaultInWords("what jo-client may use", lambda: None),
        help="Memory for payloads that ask for some",
    )
    gpus: tuple[int, ...] | None = setting(
        "GPUS",
        GpuIndices(),
        default=DefaultInWords("all NVIDIA devices", lambda: None),
        help="Indices of the NVIDIA devices for payloads that ask for some, such as 0,1; or none",
    )
    kill_grace_s: float = setting(
        "KILL_GRACE",
        Duration(),
        default="5s",
        help="Time between SIGTERM and SIGKILL when a payload is terminated",
    )
    drain_timeout_s: float = setting(
        "DRAIN_TIMEOUT",
        Duration(),
        default="0",
        help="Time that running payloads have to end when jo-client is stopped",
    )
    batch: BatchSettings = group(BatchSettings)
    execution: ExecutionSettings = group(ExecutionSettings)
    registration: RegistrationSettings = group(RegistrationSettings)
    pass_env: tuple[str, ...] = setting(
        "PASS_ENV",
        VariableNames(),
        default=no_default(()),
        help="Names of environment variables that are passed to scripts, comma-separated",
    )
    client_token: str | None = setting(
        "CLIENT_TOKEN",
        Secret(),
        default=no_default(None),
        help="Token that jo-server must send; jo-server must have the same value",
        secret=True,
    )
    allowed_hosts: tuple[str, ...] = shared.allowed_hosts("CLIENT_TOKEN")
    min_upload_rate: int = shared.min_upload_rate()
    max_connections_per_peer: int = shared.max_connections_per_peer("1000")
    log_level: str = shared.log_level()
    log_format: str = shared.log_format()

    script_environment: Mapping[str, str]
    """Environment variables that run.sh sees."""
    command_environment: Mapping[str, str]
    """Environment variables that the commands of a batch system see, besides those of run.sh."""
    warnings: tuple[str, ...]
    """Messages about variables whose names are almost those of settings."""


SETTINGS = all_settings(Settings)


def settings_of_process(flags: Mapping[str, str | None]) -> Settings:
    """Read the settings of this process, and arm its fault points. Raises ``StartupError``.

    Afterwards the environment has no secrets, which child processes would inherit.
    """
    faults.arm(os.environ)
    settings = read_settings(os.environ, flags)
    remove_secrets(os.environ, SETTINGS)
    return settings


def read_settings(environment: Mapping[str, str], flags: Mapping[str, str | None]) -> Settings:
    """Read and check all settings. Raises ``StartupError`` for the first one that is wrong."""
    reader = SettingsReader(environment, flags)
    settings = reader.read_all(
        Settings,
        script_environment=_script_environment(reader),
        command_environment=command_environment(environment),
        warnings=tuple(misspelled_variables(environment, SETTINGS)),
    )
    check_users(reader, settings.execution, settings.slots)
    check_executor(reader, settings.batch, settings.execution)
    _check_registration(reader, settings.registration)
    if settings.batch.is_used and not reader.text("SLOTS"):
        return replace(settings, slots=DEFAULT_SLOTS)
    return settings


def _check_registration(reader: SettingsReader, registration: RegistrationSettings) -> None:
    """Refuse settings of registered clients that would have no effect without SERVER_URL."""
    if registration.server_url is None and registration != RegistrationSettings():
        url = setting_of(RegistrationSettings, "server_url")
        raise reader.refusal(
            url, "the URL of a jo-server, because another setting of registered clients is set"
        )


def _script_environment(reader: SettingsReader) -> dict[str, str]:
    """Choose the variables that scripts see: PATH, LANG, and those listed in PASS_ENV.

    PATH and LANG have a default because bash and the programs of scripts rely on them. Raises
    ``SettingError`` if PASS_ENV lists a secret.
    """
    pass_env = setting_of(Settings, "pass_env")
    listed: tuple[str, ...] = reader.read(pass_env)
    secrets = {setting.name for setting in SETTINGS if setting.secret}
    if secrets.intersection(listed):
        raise reader.refusal(pass_env, f"a list without {', '.join(sorted(secrets))}")
    passed = {
        name: reader.environment[name]
        for name in ("PATH", "LANG", *listed)
        if name in reader.environment
    }
    return {"PATH": os.defpath, "LANG": "C.UTF-8"} | passed
