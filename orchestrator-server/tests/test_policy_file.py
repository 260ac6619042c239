"""The policy file: what it says, what is refused with its line, and how it is reloaded."""

import asyncio
import re
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from fake_client import FakeClient, StartClient
from job_orchestrator.common.errors import StartupError
from job_orchestrator.server.auth.token_file import create_token
from job_orchestrator.server.model import Rate
from job_orchestrator.server.scheduling.base import UserTerms
from job_orchestrator.server.scheduling.policy_file import PolicyFileInvalid, parse_policy
from job_orchestrator.server.scheduling.policy_reloader import PolicyReloader
from job_orchestrator.server.scheduling.rules import Rules, Terms
from running_server import StartServer, tuned

COURSE = """\
[users.7]
weight = 4
runs_per_user = 10
jobs_per_hour = 100
jobs_per_hour_burst = 20

[groups.course]
members = [1, "8..10"]
weight = 0.5
max_runs = 20
from = 2026-12-01
until = 2026-12-24

[groups.project]
members = [7, 8]
weight = 2
max_runs_per_user = 3
max_priority = 5
"""


def at(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_terms_are_those_of_the_user_and_of_the_groups() -> None:
    terms = parse_policy(COURSE).terms_at(at("2026-12-10"))
    assert terms.groups == {"course": 20}
    member = UserTerms(weight=0.5, groups=("course",))
    assert terms.users == {
        1: member,
        7: UserTerms(
            weight=4,
            runs=10,
            total=3,
            groups=("project",),
            rate=Rate(100, 20),
            max_priority=5,
        ),
        8: UserTerms(weight=2, total=3, groups=("course", "project"), max_priority=5),
        9: member,
        10: member,
    }


@pytest.mark.parametrize(
    ("now", "exists"),
    [
        ("2026-11-30T23:59:59", False),
        ("2026-12-01T00:00:00", True),
        ("2026-12-24T23:59:59", True),
        ("2026-12-25T00:00:00", False),
    ],
)
def test_group_exists_from_its_first_to_its_last_day(now: str, exists: bool) -> None:
    terms = parse_policy(COURSE).terms_at(at(now))
    assert (1 in terms.users, "course" in terms.groups) == (exists, exists)


def test_empty_file_changes_nothing() -> None:
    assert parse_policy("").terms_at(0.0) == Terms()


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("[users.7\n", 1, "valid TOML"),
        ("[users.7]\nweight = 2\n\nweigth = 3\n", 4, "weigth"),
        ("[users.7]\nweight = 0\n", 2, "> 0"),
        ("[users.7]\n\nruns_per_user = 'five'\n", 3, "int"),
        ("# users\n[users.bob]\n", 2, "id of a user"),
        ("[users.99999999999]\n", 1, "id of a user"),
        ("[groups.a]\nmembers = [1]\n[groups.b]\nmax_runs = 1\n", 3, "members"),
        ("[groups.a]\nmembers = [1, '5..2']\n", 2, "5..2"),
        ("[groups.a]\nmembers = [1, '1..2000000000']\n", 2, "range"),
        ("[groups.a]\nmembers = []\nfrom = '2026-01-01'\n", 3, "date"),
        ("[groups.a]\nmembers = []\nfrom = 2026-02-01\nuntil = 2026-01-01\n", 4, "later"),
        ("[groups.'a b']\nmembers = []\nmax_runs = -1\n", 3, ">= 0"),
        ("[projects.a]\n", 1, "users and groups"),
        ("users = 3\n", 1, "table"),
    ],
)
def test_mistake_is_refused_with_its_line(text: str, line: int, words: str) -> None:
    with pytest.raises(PolicyFileInvalid) as raised:
        parse_policy(text)
    assert f"line {line}" in str(raised.value).lower()
    assert words in str(raised.value)


class Now:
    """Clock of a reloader."""

    def __init__(self, text: str) -> None:
        self.at = at(text)

    def __call__(self) -> float:
        return self.at


async def test_file_is_reloaded_when_it_changes_and_a_bad_one_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, rules = tmp_path / "policy.toml", Rules({}, lambda _: None)
    path.write_text("[users.7]\nweight = 2\n")
    reloader = PolicyReloader(path, rules)
    await reloader.start()
    assert rules.terms.users[7].weight == 2
    for bad in ("[users.7]\nweight = -10\n", "[users.7]\nweight = \n"):
        path.write_text(bad)
        for _ in range(3):
            await reloader.run_pass()
        assert rules.terms.users[7].weight == 2
    errors = [record.getMessage() for record in caplog.records if record.levelname == "ERROR"]
    assert len(errors) == 2, "each bad version is reported once"
    assert "Line 2: weight of [users.7]" in errors[0]
    path.unlink()
    await reloader.run_pass()
    await reloader.run_pass()
    assert rules.terms.users[7].weight == 2
    path.write_text("[users.7]\nweight = 3.5\n")
    await reloader.run_pass()
    assert rules.terms.users[7].weight == 3.5


async def test_group_begins_and_ends_while_the_server_runs(tmp_path: Path) -> None:
    path, rules, now = tmp_path / "policy.toml", Rules({}, lambda _: None), Now("2026-11-01")
    path.write_text(COURSE)
    reloader = PolicyReloader(path, rules, now=now)
    await reloader.start()
    for day, expected in (("2026-11-30", {}), ("2026-12-02", {"course": 20}), ("2026-12-27", {})):
        now.at = at(day)
        await reloader.run_pass()
        assert rules.terms.groups == expected


@pytest.mark.parametrize("content", [None, b"[users.7]\nweight = 0\n", b"\xff"])
async def test_start_is_refused_with_a_file_that_can_not_be_used(
    tmp_path: Path, content: bytes | None
) -> None:
    path = tmp_path / "policy.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(StartupError, match="POLICY_FILE"):
        await PolicyReloader(path, Rules({}, lambda _: None)).start()


@tuned(policy_interval_s=0.05, dispatch_interval_s=0.05)
async def test_limit_of_a_group_holds_for_its_members_together_until_the_file_changes(
    client: FakeClient, start_client: StartClient, start_server: StartServer, tmp_path: Path
) -> None:
    path = tmp_path / "policy.toml"
    path.write_text('[groups.course]\nmembers = ["1..50"]\nmax_runs = 2\n')
    server = await start_server(await start_client(client), POLICY_FILE=str(path))
    await server.hears_clients()
    jobs = [await server.submit(user=user) for user in (1, 2, 3)]
    await server.until(jobs[1], "Submitted")
    await server.until(await server.submit(user=60), "Submitted")
    reason = (await server.get_json(f"/jobs/{jobs[2]}"))["queue"]["reason"]
    assert reason == "2 jobs of the group course are active, of at most 2"
    other = tmp_path / "next.toml"
    other.write_text('[groups.course]\nmembers = ["1..50"]\nmax_runs = 3\n')
    other.replace(path)
    await server.until(jobs[2], "Submitted")


async def test_users_ask_for_no_higher_priority_than_they_may(
    start_server: StartServer, tmp_path: Path
) -> None:
    tokens, path = tmp_path / "tokens", tmp_path / "policy.toml"
    path.write_text("[users.8]\nmax_priority = 50\n")
    texts = [
        (await asyncio.to_thread(create_token, tokens, user_id=n, label="", valid_s=None))[0]
        for n in (7, 8, None)
    ]
    server = await start_server(
        "http://127.0.0.1:9",
        API_TOKENS_FILE=str(tokens),
        POLICY_FILE=str(path),
        MAX_PRIORITY="10",
    )
    answers = []
    for token in texts:
        form = aiohttp.FormData({"user_id": "8", "service": "example", "priority": "40"})
        if token is texts[0]:
            form = aiohttp.FormData({"service": "example", "priority": "40"})
        form.add_field("file", b"exit 0", filename="run.sh")
        answers.append(await server.post(form, Authorization=f"Bearer {token}"))
    assert [status for status, _ in answers] == [400, 201, 201]
    assert answers[0][1]["message"] == "Invalid priority, should be at most 10 for this user"


def test_dates_are_days_of_the_server() -> None:
    text = "[groups.a]\nmembers = [1]\nfrom = 2026-12-01T10:00:00Z\n"
    begin = datetime(2026, 12, 1, 10, tzinfo=UTC).timestamp()
    assert 1 not in parse_policy(text).terms_at(begin - 1).users
    assert 1 in parse_policy(text).terms_at(begin).users


def test_examples_of_the_documentation_are_valid() -> None:
    page = Path(__file__).parents[2] / "docs" / "policies.md"
    examples = re.findall(r"^```toml\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert len(examples) >= 3
    for example in examples:
        assert parse_policy(example).terms_at(at("2026-12-10")).users


def test_group_has_the_members_that_an_issuer_names() -> None:
    policy = parse_policy('[groups.course]\nclaim = "course-2026"\nmembers = [5]\nweight = 3\n')
    assert set(policy.terms_at(0.0).users) == {5}
    terms = policy.terms_at(0.0, {"course-2026": frozenset({7, 8}), "other": frozenset({9})})
    assert {user: each.weight for user, each in terms.users.items()} == {5: 3.0, 7: 3.0, 8: 3.0}
    with pytest.raises(PolicyFileInvalid, match="Line 1: A group needs members, or a claim"):
        parse_policy("[groups.course]\nweight = 3\n")
