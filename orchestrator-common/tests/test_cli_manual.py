"""Manual pages of ``jo``."""

import shutil
import subprocess
from pathlib import Path

import click
import pytest

from job_orchestrator.cli.main import jo
from job_orchestrator.cli.manual import pages, write_pages

NAMES = ["jo", *(f"jo-{name}" for name in sorted(jo.commands))]


def test_every_command_has_a_manual_page() -> None:
    assert sorted(pages()) == sorted(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_manual_page_describes_every_option_and_argument(name: str) -> None:
    page = pages()[name].replace("\\-", "-").replace(r"\[u2026]", "…")
    command = jo if name == "jo" else jo.commands[name.removeprefix("jo-")]
    context = command.make_context(name, [], resilient_parsing=True)
    for parameter in context.command.get_params(context):
        if isinstance(parameter, click.Option):
            assert all(option in page for option in parameter.opts)
        else:
            assert parameter.make_metavar(context) in page
    assert page.startswith('.TH "')
    for heading in ("NAME", "SYNOPSIS", "DESCRIPTION", "OPTIONS"):
        assert f".SH {heading}\n" in page


@pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
@pytest.mark.parametrize("name", NAMES)
def test_manual_page_is_formatted_without_warnings(tmp_path: Path, name: str) -> None:
    write_pages(tmp_path)
    run = subprocess.run(
        ["groff", "-man", "-ww", "-Tutf8", str(tmp_path / f"{name}.1")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stderr == ""
    assert run.stdout.startswith(f"{name.upper()}(1)")
