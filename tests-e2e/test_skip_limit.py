"""The limit on skipped tests fails a run with an unlisted reason."""

import subprocess
import sys
from pathlib import Path

import pytest

from skip_limit import VARIABLE

TESTS = """
import pytest

def test_on_the_list():
    pytest.skip("no moon tonight")

{more}
"""


@pytest.mark.parametrize(
    ("more", "code"),
    [
        ("", 0),
        ("def test_other():\n    pytest.skip('no moon tonight, and no stars')", 1),
        ("@pytest.mark.skip(reason='lazy')\ndef test_other():\n    pass", 1),
    ],
)
def test_skip_for_a_reason_that_is_not_listed_fails_the_run(
    tmp_path: Path, more: str, code: int
) -> None:
    here = Path(__file__).parent
    (tmp_path / "test_some.py").write_text(TESTS.format(more=more))
    (tmp_path / "conftest.py").write_text("from skip_limit import watch_skips as pytest_configure")
    (tmp_path / "allowed").write_text("no moon .*ght  # it shines rarely\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "xdist.plugin", "-n", "1", tmp_path],
        cwd=tmp_path,
        env={
            "PYTHONPATH": str(here),
            VARIABLE: str(tmp_path / "allowed"),
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == code, run.stdout
    assert ("test_other: " in run.stdout) == (code == 1)
    assert "test_on_the_list" not in run.stdout
