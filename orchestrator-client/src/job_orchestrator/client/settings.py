"""The settings of jo-client, read once at its start."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from job_orchestrator.client.executors.local.settings import (
    EXECUTION_OPTIONS,
    ExecutionSettings,
    read_execution,
)
from job_orchestrator.common.config.reader import (
    Option,
    SettingError,
    SettingsReader,
    nearly_settings,
)
from job_orchestrator.common.logs.setup import FORMATS, LEVELS
from job_orchestrator.common.runtime import fault_injection as faults

OPTIONS = (
    Option("HOST", "0.0.0.0", "Address to listen on"),  # noqa: S104 (containers need it)
    Option("PORT", "9000", "Port to listen on; 0 takes a free one"),
    Option("DATA_PATH", "./data", "Folder of the payloads' files"),
    Option("MAX_AGE", "172800", "How long results that nobody fetched are kept"),
    Option("MAX_UPLOAD_SIZE", "400MB", "Size of a payload's files together"),
    Option("MAX_RESULT_SIZE", "none", "Size of a payload's packed results"),
    Option("SLOTS", "number of CPUs", "How many payloads run at once"),
    Option("KILL_GRACE", "5s", "Time between TERM and KILL when a payload is ended"),
    Option("DRAIN_TIMEOUT", "0", "How long running payloads may go on when the client is stopped"),
    *EXECUTION_OPTIONS,
    Option("PASS_ENV", "none", "Names of variables that scripts may see, comma-separated"),
    Option("CLIENT_TOKEN", "none", "What jo-server must show; the same as there", secret=True),
    Option("MIN_UPLOAD_RATE", "1kB", "Bytes that a sender must send in a second; 0: any rate"),
    Option("MAX_CONNECTIONS_PER_PEER", "1000", "Connections from one address; 0: any number"),
    Option("LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING or ERROR"),
    Option("LOG_FORMAT", "text", "text or json"),
)

_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class Settings:
    """All of it, checked. Times in seconds, sizes in bytes.

    ``script_environment`` is what run.sh sees of the client's own environment.
    """

    host: str
    port: int
    data_path: Path
    max_age_s: float
    max_upload_bytes: int
    max_result_bytes: int
    slots: int
    kill_grace_s: float
    drain_timeout_s: float
    execution: ExecutionSettings
    script_environment: Mapping[str, str]
    client_token: str | None
    min_upload_rate: int
    max_connections_per_peer: int
    log_level: str
    log_format: str
    warnings: tuple[str, ...]
    """Of variables that may have been meant to be settings."""


def settings_of_process(flags: Mapping[str, str | None]) -> Settings:
    """The settings that this process was started with. Raises ``StartupError``."""
    faults.arm(os.environ)
    return read_settings(os.environ, flags)


def read_settings(environment: Mapping[str, str], flags: Mapping[str, str | None]) -> Settings:
    """Read and check every setting. Raises ``StartupError`` for the first that can't be used."""
    reader = SettingsReader(environment, flags)
    slots = reader.integer("SLOTS", os.cpu_count() or 1, minimum=1, maximum=100_000)
    return Settings(
        host=reader.text("HOST") or "0.0.0.0",  # noqa: S104
        port=reader.integer("PORT", 9000, minimum=0, maximum=65535),
        data_path=reader.path("DATA_PATH", "./data"),
        max_age_s=reader.duration_s("MAX_AGE", 172_800),
        max_upload_bytes=reader.size_bytes("MAX_UPLOAD_SIZE", 400_000_000, least=1, zero=False),
        max_result_bytes=reader.size_bytes("MAX_RESULT_SIZE", 0),
        slots=slots,
        kill_grace_s=reader.duration_s("KILL_GRACE", 5),
        drain_timeout_s=reader.duration_s("DRAIN_TIMEOUT", 0),
        execution=read_execution(reader, slots),
        script_environment=_script_environment(reader),
        client_token=reader.secret("CLIENT_TOKEN"),
        min_upload_rate=reader.size_bytes("MIN_UPLOAD_RATE", 1000),
        max_connections_per_peer=reader.integer(
            "MAX_CONNECTIONS_PER_PEER", 1000, minimum=0, maximum=1_000_000
        ),
        log_level=reader.choice("LOG_LEVEL", "INFO", LEVELS),
        log_format=reader.choice("LOG_FORMAT", "text", FORMATS),
        warnings=tuple(nearly_settings(environment, OPTIONS)),
    )


def _script_environment(reader: SettingsReader) -> dict[str, str]:
    """What scripts see: where programs are, the language, and what the administrator lists."""
    listed = [name.strip() for name in (reader.text("PASS_ENV") or "").split(",")]
    if not all(_VARIABLE.fullmatch(name) for name in listed if name):
        allowed = "names of variables, separated by commas"
        raise SettingError("PASS_ENV", reader.text("PASS_ENV"), allowed)
    secrets = {option.name for option in OPTIONS if option.secret}
    if secrets.intersection(listed):
        allowed = f"a list without {', '.join(sorted(secrets))}"
        raise SettingError("PASS_ENV", reader.text("PASS_ENV"), allowed)
    passed = {
        name: reader.environment[name]
        for name in ("PATH", "LANG", *listed)
        if name in reader.environment
    }
    return {"PATH": os.defpath, "LANG": "C.UTF-8"} | passed
