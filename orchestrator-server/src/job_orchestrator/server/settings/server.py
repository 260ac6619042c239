"""The settings of jo-server, read once at its start."""

import base64
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from job_orchestrator.common.config.reader import (
    Option,
    SettingError,
    SettingsReader,
    nearly_settings,
)
from job_orchestrator.common.errors import StartupError
from job_orchestrator.common.logs.setup import FORMATS, LEVELS
from job_orchestrator.common.runtime import fault_injection as faults
from job_orchestrator.server.model import CallbackRules, ClientUrls, Service
from job_orchestrator.server.settings.services import nearly_service_variables, service_names

OPTIONS = (
    Option("HOST", "0.0.0.0", "Address to listen on"),  # noqa: S104 (containers need it)
    Option("PORT", "5000", "Port to listen on; 0 takes a free one"),
    Option("DB_PATH", "./db.sqlite", "SQLite database file; its folder must exist"),
    Option("DATA_PATH", "./data", "Folder of the jobs' files"),
    Option("MAX_AGE", "172800", "How long results are kept after a job's end"),
    Option("MAX_UPLOAD_SIZE", "400MB", "Size of a job's files together"),
    Option("MAX_RESULT_SIZE", "none", "Size of a job's packed results"),
    Option("LOST_AFTER", "5m", "How long a client may be silent before its jobs are run elsewhere"),
    Option("CLIENT_TOKEN", "none", "What is shown to jo-client; the same as there", secret=True),
    Option("API_TOKENS_FILE", "none", "File of API tokens; without one nobody needs a token"),
    Option("CORS_ORIGINS", "none", "Web pages that may call from a browser, comma-separated; or *"),
    Option("CALLBACK_ALLOW", "none", "Hosts that callback_url may name, comma-separated"),
    Option("CALLBACK_ALLOW_PRIVATE", "0", "1: callbacks may go to addresses that are not public"),
    Option("CALLBACK_SECRET", "none", "Signs callbacks; whsec_ and base64", secret=True),
    Option("METRICS_OPEN", "0", "1: /metrics takes no token"),
    Option("MAX_QUEUED_PER_USER", "0", "Jobs of one user that may wait at once; 0: any number"),
    Option("MAX_STORED_PER_USER", "0", "Size of all files kept for one user; 0: any size"),
    Option("MIN_UPLOAD_RATE", "1kB", "Bytes that a sender must send in a second; 0: any rate"),
    Option("MAX_CONNECTIONS_PER_PEER", "4000", "Connections from one address; 0: any number"),
    Option("LOG_LEVEL", "INFO", "DEBUG, INFO, WARNING or ERROR"),
    Option("LOG_FORMAT", "text", "text or json"),
)

_HOST_PATTERN = re.compile(r"[a-z0-9._*:-]+")
_MAX_COUNT = 1_000_000
_SECRET_PREFIX = "whsec_"  # noqa: S105 (a prefix)

MIN_USER_ID, MAX_USER_ID = -(2**31), 2**31 - 1


@dataclass(frozen=True)
class Settings:
    """All of it, checked. Times in seconds, sizes in bytes."""

    host: str
    port: int
    db_path: Path
    data_path: Path
    max_age_s: float
    max_upload_bytes: int
    max_result_bytes: int
    lost_after_s: float
    client_token: str | None
    api_tokens_file: Path | None
    cors_origins: frozenset[str]
    callback_rules: CallbackRules
    callback_key: bytes
    metrics_open: bool
    max_queued_per_user: int
    max_stored_per_user: int
    min_upload_rate: int
    max_connections_per_peer: int
    log_level: str
    log_format: str
    services: Mapping[str, Service]
    """By lower-case name."""
    warnings: tuple[str, ...]
    """Of variables that may have been meant to be settings."""


def settings_of_process(flags: Mapping[str, str | None]) -> Settings:
    """The settings that this process was started with. Raises ``StartupError``."""
    faults.arm(os.environ)
    return read_settings(os.environ, flags)


def places_of_process(flags: Mapping[str, str | None]) -> tuple[Path, Path]:
    """Where the database and the jobs' files are."""
    return _read_places(SettingsReader(os.environ, flags))


def tokens_file_of_process(flags: Mapping[str, str | None]) -> Path:
    """Where tokens are kept. Raises ``StartupError`` if that is not set."""
    path = _read_tokens_file(SettingsReader(os.environ, flags))
    if path is None:
        raise SettingError("API_TOKENS_FILE", None, "the file that tokens are kept in")
    return path


def read_settings(environment: Mapping[str, str], flags: Mapping[str, str | None]) -> Settings:
    """Read and check every setting. Raises ``StartupError`` for the first that can't be used."""
    reader = SettingsReader(environment, flags)
    db_path, data_path = _read_places(reader)
    rules = _read_callback_rules(reader)
    settings = Settings(
        host=reader.text("HOST") or "0.0.0.0",  # noqa: S104
        port=reader.integer("PORT", 5000, minimum=0, maximum=65535),
        db_path=db_path,
        data_path=data_path,
        max_age_s=reader.duration_s("MAX_AGE", 172_800),
        max_upload_bytes=reader.size_bytes("MAX_UPLOAD_SIZE", 400_000_000, least=1, zero=False),
        max_result_bytes=reader.size_bytes("MAX_RESULT_SIZE", 0),
        lost_after_s=reader.duration_s("LOST_AFTER", 300),
        client_token=reader.secret("CLIENT_TOKEN"),
        api_tokens_file=_read_tokens_file(reader),
        cors_origins=_read_origins(reader),
        callback_rules=rules,
        callback_key=_read_callback_key(reader, rules),
        metrics_open=reader.switch("METRICS_OPEN", default=False),
        max_queued_per_user=reader.integer("MAX_QUEUED_PER_USER", 0, minimum=0, maximum=_MAX_COUNT),
        max_stored_per_user=reader.size_bytes("MAX_STORED_PER_USER", 0),
        min_upload_rate=reader.size_bytes("MIN_UPLOAD_RATE", 1000),
        max_connections_per_peer=reader.integer(
            "MAX_CONNECTIONS_PER_PEER", 4000, minimum=0, maximum=1_000_000
        ),
        log_level=reader.choice("LOG_LEVEL", "INFO", LEVELS),
        log_format=reader.choice("LOG_FORMAT", "text", FORMATS),
        services=_read_services(reader),
        warnings=(
            *nearly_settings(environment, OPTIONS),
            *nearly_service_variables(environment),
        ),
    )
    if not settings.services:
        raise StartupError(
            ". ".join(
                (
                    "No services configured: set SERVICE_<NAME>_UPLOAD_URL and"
                    " SERVICE_<NAME>_DOWNLOAD_URL",
                    *settings.warnings,
                )
            )
        )
    return settings


def _read_places(reader: SettingsReader) -> tuple[Path, Path]:
    return reader.path("DB_PATH", "./db.sqlite"), reader.path("DATA_PATH", "./data")


def _read_tokens_file(reader: SettingsReader) -> Path | None:
    return reader.path("API_TOKENS_FILE", "") if reader.text("API_TOKENS_FILE") else None


def _read_origins(reader: SettingsReader) -> frozenset[str]:
    if reader.text("CORS_ORIGINS") == "*":
        return frozenset({"*"})
    # As browsers send them: lower case, and no path.
    urls = reader.urls("CORS_ORIGINS")
    if any(urlsplit(url).path or urlsplit(url).username is not None for url in urls):
        raise SettingError(
            "CORS_ORIGINS",
            reader.text("CORS_ORIGINS"),
            "*, or origins such as https://portal.example.org, separated by commas",
        )
    return frozenset(url.lower() for url in urls)


def _read_callback_rules(reader: SettingsReader) -> CallbackRules:
    held = (reader.text("CALLBACK_ALLOW") or "").lower()
    patterns = tuple(part.strip() for part in held.split(",") if part.strip())
    if not all(_HOST_PATTERN.fullmatch(pattern) for pattern in patterns):
        raise SettingError(
            "CALLBACK_ALLOW", held, "hosts such as portal.example.org or *.example.org, no URLs"
        )
    return CallbackRules(patterns, reader.switch("CALLBACK_ALLOW_PRIVATE", default=False))


def _read_callback_key(reader: SettingsReader, rules: CallbackRules) -> bytes:
    secret = reader.secret("CALLBACK_SECRET")
    if secret is None:
        if rules.patterns:
            raise SettingError(
                "CALLBACK_SECRET", None, "what callbacks are signed with, if CALLBACK_ALLOW is set"
            )
        return b""
    try:
        return signing_key(secret)
    except ValueError as error:
        raise SettingError("CALLBACK_SECRET", "whsec_…", "base64 after whsec_") from error


def signing_key(secret: str) -> bytes:
    """Return the key of a CALLBACK_SECRET: base64 after ``whsec_``, else the text itself.

    Raises ``ValueError``.
    """
    if secret.startswith(_SECRET_PREFIX):
        return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    return secret.encode()


def _read_services(reader: SettingsReader) -> dict[str, Service]:
    names = service_names(reader.environment)
    return {name.lower(): _read_service(reader, name) for name in names}


def _read_service(reader: SettingsReader, name: str) -> Service:
    prefix = f"SERVICE_{name}"

    def count(what: str, default: int) -> int:
        return reader.integer(f"{prefix}_{what}", default, minimum=1, maximum=_MAX_COUNT)

    return Service(
        name=name.lower(),
        clients=_read_clients(reader, prefix),
        runs_per_user=count("RUNS_PER_USER", 5),
        max_runs=count("MAX_RUNS", 10),
        max_attempts=count("MAX_ATTEMPTS", 3),
        time_limit_s=reader.duration_s(f"{prefix}_TIME_LIMIT", 0) or None,
    )


def _read_clients(reader: SettingsReader, prefix: str) -> tuple[ClientUrls, ...]:
    uploads = reader.urls(f"{prefix}_UPLOAD_URL")
    downloads = reader.urls(f"{prefix}_DOWNLOAD_URL")
    terminates = reader.urls(f"{prefix}_TERMINATE_URL")
    if not uploads and not downloads:
        raise SettingError(f"{prefix}_UPLOAD_URL", None, "the URL of the service's client")
    clients = len(uploads) or len(downloads)
    for what, urls, required in (
        ("UPLOAD_URL", uploads, True),
        ("DOWNLOAD_URL", downloads, True),
        ("TERMINATE_URL", terminates, False),
    ):
        if len(urls) != clients and (urls or required):
            name = f"{prefix}_{what}"
            allowed = "a URL" if clients == 1 else f"{clients} URLs, separated by commas"
            allowed += ": one for each client of the service"
            raise SettingError(name, reader.text(name), allowed)
    terminates = terminates or tuple(_origin(url) for url in uploads)
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
    """``url``, with the documented path of a client if it names none."""
    return url if urlsplit(url).path.strip("/") else url + default
