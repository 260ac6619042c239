"""Settings of jo-server: defaults, values, and the errors of values that are refused."""

import pytest

from job_orchestrator.common.errors import StartupError
from job_orchestrator.server.model import Service
from job_orchestrator.server.settings.server import read_settings

BASE = {
    "SERVICE_X_UPLOAD_URL": "http://c:9000/submit",
    "SERVICE_X_DOWNLOAD_URL": "http://c:9000/retrieve",
}


def service(**settings: str) -> Service:
    (service,) = read_settings(settings, {}).services.values()
    return service


def test_defaults_are_the_documented_ones() -> None:
    settings = read_settings(BASE, {})
    assert (settings.port, settings.max_age_s, settings.max_upload_bytes) == (
        5000,
        172_800,
        400_000_000,
    )
    x = settings.services["x"]
    assert (x.runs_per_user, x.max_runs, x.max_attempts) == (5, 10, 3)
    assert x.clients[0].terminate == "http://c:9000/kill"


def test_flag_wins_over_the_environment() -> None:
    assert read_settings({**BASE, "PORT": "1"}, {"PORT": "2"}).port == 2


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("30s", 30), ("5m", 300), ("48h", 172_800), ("1.5h", 5400)]
)
def test_time_with_unit_is_converted_to_seconds(text: str, seconds: float) -> None:
    assert read_settings({**BASE, "MAX_AGE": text}, {}).max_age_s == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("100", 100), ("400MB", 400_000_000), ("10 GB", 10**10), ("1GiB", 2**30)]
)
def test_size_with_unit_is_converted_to_bytes(text: str, size: int) -> None:
    assert read_settings({**BASE, "MAX_UPLOAD_SIZE": text}, {}).max_upload_bytes == size


def test_trap_43_service_names_may_hold_underscores() -> None:
    url = "http://c:1/submit"
    found = service(SERVICE_MY_TOOL_UPLOAD_URL=url, SERVICE_MY_TOOL_DOWNLOAD_URL=url)
    assert found.name == "my_tool"


@pytest.mark.parametrize(
    ("upload", "submit", "kill", "events"),
    [
        ("http://c:9000", "http://c:9000/submit", "http://c:9000/kill", "http://c:9000/events"),
        ("http://c:9000/", "http://c:9000/submit", "http://c:9000/kill", "http://c:9000/events"),
        ("http://c/a/in/", "http://c/a/in", "http://c/kill", "http://c/a/events"),
    ],
)
def test_trap_44_urls_with_and_without_path_and_slash_are_joined_properly(
    upload: str, submit: str, kill: str, events: str
) -> None:
    client = service(SERVICE_X_UPLOAD_URL=upload, SERVICE_X_DOWNLOAD_URL="http://c/r/").clients[0]
    assert (client.upload, client.terminate, client.beside("events")) == (submit, kill, events)
    assert (client.download, client.partial) == ("http://c/r", "http://c/r_partial")


def test_urls_separated_by_commas_are_several_clients() -> None:
    found = service(
        SERVICE_X_UPLOAD_URL="http://a/submit, http://b/submit",
        SERVICE_X_DOWNLOAD_URL="http://a/retrieve,http://b/retrieve",
    )
    assert [client.upload for client in found.clients] == ["http://a/submit", "http://b/submit"]


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"PORT": "70000"}, "PORT is '70000'"),
        ({"PORT": "5e3"}, "PORT is '5e3'"),
        ({"MAX_AGE": "1 week"}, "MAX_AGE is '1 week'"),
        ({"LOG_LEVEL": "loud"}, "LOG_LEVEL is 'loud'"),
        ({"SERVICE_X_UPLOAD_URL": "ftp://c/"}, "SERVICE_X_UPLOAD_URL is 'ftp://c/'"),
        ({"SERVICE_X_UPLOAD_URL": "http://c:99999/"}, "SERVICE_X_UPLOAD_URL"),
        ({"SERVICE_X_UPLOAD_URL": "http://a,http://b"}, "SERVICE_X_DOWNLOAD_URL"),
        ({"SERVICE_X_TERMINATE_URL": "http://a,http://b"}, "SERVICE_X_TERMINATE_URL"),
        ({"SERVICE_X_MAX_RUNS": "-1"}, "SERVICE_X_MAX_RUNS is '-1'"),
        ({"SERVICE_Y_DOWNLOAD_URL": "http://a"}, "SERVICE_Y_UPLOAD_URL is not set"),
    ],
)
def test_bad_setting_is_refused_with_its_name(settings: dict[str, str], named: str) -> None:
    with pytest.raises(StartupError, match=named.replace("(", r"\(")):
        read_settings({**BASE, **settings}, {})


def test_environment_without_service_is_refused() -> None:
    with pytest.raises(StartupError, match="No services configured"):
        read_settings({}, {})


URLS = ("UPLOAD_URL", "DOWNLOAD_URL")


@pytest.mark.parametrize(
    ("variable", "hint"),
    [
        ("SERVICE_A_MAX_RUN", "did you mean SERVICE_A_MAX_RUNS?"),
        ("SERVICE_A_B_TIMELIMIT", "did you mean SERVICE_A_B_TIME_LIMIT?"),
        ("SERVICE_A_B_MAX_RUN", "did you mean SERVICE_A_B_MAX_RUNS?"),
        ("SERVICE_A_B_C_MAX_RUN", "these settings end in _UPLOAD_URL, _DOWNLOAD_URL"),
        ("SERVICE_A_QUOTA", "these settings end in _UPLOAD_URL, _DOWNLOAD_URL"),
    ],
)
def test_misspelled_variable_of_a_service_stops_the_start(variable: str, hint: str) -> None:
    base = {f"SERVICE_{name}_{url}": "http://c:9000" for name in ("A", "A_B") for url in URLS}
    assert read_settings(base, {}).services.keys() == {"a", "a_b"}
    with pytest.raises(StartupError) as refused:
        read_settings({**base, variable: "1"}, {})
    assert str(refused.value).startswith(f"{variable} is not a setting of a service; {hint}")


@pytest.mark.parametrize(
    "variable", ["SERVICE_X_PORT", "SERVICE_X_PORT_5000_TCP_ADDR", "SERVICE_X_SERVICE_HOST"]
)
def test_variable_of_kubernetes_for_a_service_of_that_name_is_ignored(variable: str) -> None:
    assert read_settings({**BASE, variable: "tcp://10.0.0.1:9000"}, {}).warnings == ()


def test_misspelled_variable_is_reported_as_a_warning() -> None:
    misspelled = {"MAX_UPLOAD_SIZ": "1", "CLIENT_TOKENS": "x", "SERVICE_Y_UPLOAD_URI": "http://a"}
    assert read_settings({**BASE, **misspelled}, {}).warnings == (
        "CLIENT_TOKENS is ignored; did you mean CLIENT_TOKEN?",
        "MAX_UPLOAD_SIZ is ignored; did you mean MAX_UPLOAD_SIZE?",
        "SERVICE_Y_UPLOAD_URI is ignored; did you mean SERVICE_Y_UPLOAD_URL?",
    )
    with pytest.raises(StartupError, match=r"^No services configured: .*SERVICE_Y_UPLOAD_URL\?$"):
        read_settings(misspelled, {})


def test_other_variables_are_ignored() -> None:
    others = {"HOSTNAME", "PORTS", "LOG_FILE", "DATA_DIR", "LD_LIBRARY_PATH", "JO_TOKEN"}
    of_clients = {"SLOTS", "MEMORY_LIMIT", "CPU_LIMIT", "KILL_GRACE", "PASS_ENV", "DRAIN_TIMEOUT"}
    environment = {**BASE, **dict.fromkeys(others | of_clients, "x")}
    assert read_settings(environment, {}).warnings == ()


CALLBACKS = {"CALLBACK_ALLOW": "Example.org,*.example.org", "CALLBACK_SECRET": "x" * 16}


def test_callbacks_are_off_by_default_and_need_a_secret() -> None:
    assert read_settings(BASE, {}).callback_rules.patterns == ()
    settings = read_settings({**BASE, **CALLBACKS}, {})
    assert settings.callback_rules.patterns == ("example.org", "*.example.org")
    assert not settings.callback_rules.allow_private
    assert settings.callback_key == b"x" * 16
    whsec = {**CALLBACKS, "CALLBACK_SECRET": "whsec_MDEyMzQ1Njc4OWFiY2RlZg=="}
    assert read_settings({**BASE, **whsec}, {}).callback_key == b"0123456789abcdef"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("CALLBACK_SECRET", "", "CALLBACK_SECRET is not set"),
        ("CALLBACK_SECRET", "short", "CALLBACK_SECRET can't be used; it must be at least 16"),
        (
            "CALLBACK_SECRET",
            "whsec_this-is-no-base64",
            "CALLBACK_SECRET can't be used; it must be whsec_ and base64",
        ),
        ("CALLBACK_ALLOW", "https://example.org", "CALLBACK_ALLOW is 'https://example.org'"),
        ("CALLBACK_ALLOW", "exa[m]ple.org", "CALLBACK_ALLOW is"),
        ("CALLBACK_ALLOW_PRIVATE", "maybe", "CALLBACK_ALLOW_PRIVATE is 'maybe'"),
    ],
)
def test_bad_callback_setting_stops_the_start(name: str, value: str, message: str) -> None:
    with pytest.raises(StartupError) as refused:
        read_settings({**BASE, **CALLBACKS, name: value}, {})
    assert message in str(refused.value)
    assert "this-is-no-base64" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "warning"),
    [
        (
            {"MAX_STORED_PER_USER": "1MB", "MAX_UPLOAD_SIZE": "2MB"},
            "MAX_STORED_PER_USER (1 MB) is less than MAX_UPLOAD_SIZE (2 MB)",
        ),
        ({"CALLBACK_SECRET": "0123456789abcdef"}, "CALLBACK_SECRET is set and CALLBACK_ALLOW is"),
        ({"CALLBACK_ALLOW_PRIVATE": "1"}, "CALLBACK_ALLOW_PRIVATE is set and CALLBACK_ALLOW is"),
    ],
)
def test_settings_that_contradict_each_other_are_warned_of(
    settings: dict[str, str], warning: str
) -> None:
    (found,) = read_settings({**BASE, **settings}, {}).warnings
    assert found.startswith(warning)
