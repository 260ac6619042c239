"""``jo-server token``: create, list and revoke."""

import json
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from job_orchestrator.server.auth.token_file import create_token, read_tokens
from job_orchestrator.server.cli.main import main


def command(file: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["--api-tokens-file", str(file), "token", *arguments])


def token_for(file: Path, *arguments: str) -> str:
    result = command(file, "create", *arguments)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "tokens.json"


def test_token_is_stored_as_a_hash_in_a_file_that_only_its_owner_can_read(file: Path) -> None:
    token = token_for(file, "--user", "7")
    assert token not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token not in command(file, "list").output
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize(
    "arguments",
    [
        ("create",),
        ("create", "--user", "1", "--admin"),
        ("create", "--user", "2147483648"),
        ("create", "--admin", "--expires", "soon"),
        ("create", "--admin", "--expires", "9999999d"),
        ("create", "--admin", "--label", "a\nb"),
        ("revoke", "nope"),
        ("revoke",),
    ],
)
def test_wrong_command_changes_nothing_and_exits_with_status_2(
    file: Path, arguments: tuple[str, ...]
) -> None:
    token_for(file, "--admin")
    before = file.read_bytes()
    assert command(file, *arguments).exit_code == 2
    assert file.read_bytes() == before


def test_id_in_the_list_revokes_the_token(file: Path) -> None:
    token_for(file, "--admin")
    token_for(file, "--user", "-7", "--label", "portal", "--expires", "90d")
    (row,) = [line for line in command(file, "list").stdout.splitlines() if "portal" in line]
    assert "user -7" in row
    assert "expires 2" in row
    assert command(file, "revoke", row.split()[0]).exit_code == 0
    assert [token.user_id for token in read_tokens(file)] == [None]


def test_list_shows_times_and_expired_tokens_as_text_and_json(file: Path) -> None:
    token_for(file, "--admin")
    create_token(file, user_id=7, label="old", valid_s=-60)
    token_for(file, "--user", "8", "--expires", "1h")
    forever, old, valid = command(file, "list").stdout.splitlines()
    assert re.fullmatch(r"\w+  admin +made \d{4}-\d\d-\d\d \d\d:\d\d  does not expire", forever)
    assert re.search(r"  EXPIRED \d{4}-\d\d-\d\d \d\d:\d\d  +old$", old)
    assert re.search(r"  expires \d{4}-\d\d-\d\d \d\d:\d\d$", valid)
    rows = json.loads(command(file, "list", "--json").stdout)
    assert [(row["user_id"], row["admin"], row["label"], row["expired"]) for row in rows] == [
        (None, True, "", False),
        (7, False, "old", True),
        (8, False, "", False),
    ]
    assert rows[0]["expires_at"] is None
    assert datetime.fromisoformat(rows[1]["expires_at"]) < datetime.now(UTC)
    assert not any("sha256" in row for row in rows)


def test_tokens_created_concurrently_are_all_stored(file: Path) -> None:
    def make(user_id: int) -> None:
        create_token(file, user_id=user_id, label="", valid_s=None)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(make, range(40)))
    tokens = read_tokens(file)
    assert {token.user_id for token in tokens} == set(range(40))
    assert len({token.id for token in tokens}) == 40


def test_command_without_a_file_names_the_missing_setting() -> None:
    result = CliRunner().invoke(main, ["token", "list"], env={"API_TOKENS_FILE": ""})
    assert result.exit_code == 2
    assert "API_TOKENS_FILE is not set" in result.output
