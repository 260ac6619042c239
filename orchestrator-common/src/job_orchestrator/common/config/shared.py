"""Settings that both services have. Each function declares the field of one of them."""

from job_orchestrator.common.config.kinds import HostPatterns, Integer, Size, Text, one_of
from job_orchestrator.common.config.settings import no_default, setting
from job_orchestrator.common.logs.setup import FORMATS, LEVELS


def host() -> str:
    """Declare HOST."""
    return setting(
        "HOST",
        Text(),
        default="0.0.0.0",  # noqa: S104 (in a container the service must listen on all)
        help="Address to listen on",
    )


def port(default: str) -> int:
    """Declare PORT."""
    return setting(
        "PORT", Integer(0, 65535), default=default, help="Port to listen on; 0: any free port"
    )


def allowed_hosts(token_setting: str) -> tuple[str, ...]:
    """Declare ALLOWED_HOSTS, which is not needed where ``token_setting`` is set."""
    return setting(
        "ALLOWED_HOSTS",
        HostPatterns(),
        default=no_default(()),
        help="Host names by which users and services reach this one, comma-separated, besides IP"
        f" addresses and the name of the machine; not needed with {token_setting}",
    )


def min_upload_rate() -> int:
    """Declare MIN_UPLOAD_RATE."""
    return setting(
        "MIN_UPLOAD_RATE",
        Size(),
        default="1kB",
        help="Minimum rate of an upload, in bytes per second; 0: no minimum",
    )


def max_connections_per_peer(default: str) -> int:
    """Declare MAX_CONNECTIONS_PER_PEER."""
    return setting(
        "MAX_CONNECTIONS_PER_PEER",
        Integer(0, 1_000_000),
        default=default,
        help="Maximum number of open connections from one address; 0: no limit",
    )


def log_level() -> str:
    """Declare LOG_LEVEL."""
    return setting(
        "LOG_LEVEL",
        one_of(*LEVELS),
        default="INFO",
        help="Least severe messages to log: DEBUG, INFO, WARNING or ERROR",
    )


def log_format() -> str:
    """Declare LOG_FORMAT."""
    return setting(
        "LOG_FORMAT", one_of(*FORMATS), default="text", help="Format of the log: text or json"
    )
