"""Programs of the page about languages submit, wait, fetch and cancel."""

import asyncio
import os
import re
import shutil
import zipfile
from pathlib import Path

import pytest

from harness import Portal, Service

PAGE = (Path(__file__).parents[1] / "docs" / "languages.md").read_text()
SECTION = re.compile(r"^## ([^\n]+)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
PROGRAM = re.compile(r"^```\w+\n(.*?)^```", re.MULTILINE | re.DOTALL)
# By heading: the file of the program, the command that runs it, and one that shows that the
# libraries of the program are there.
RUNTIMES = {
    "curl": ("submit.sh", "bash -eu submit.sh", "curl --version && jq --version"),
    "JavaScript: fetch": ("submit.mjs", "node submit.mjs", "node --version"),
    "JavaScript: axios": ("submit.mjs", "node submit.mjs", "node -e 'require(\"axios\")'"),
    "Python: requests": ("submit.py", "python3 submit.py", "python3 -c 'import requests'"),
    "Python: httpx": ("submit.py", "python3 submit.py", "python3 -c 'import httpx'"),
    "Go": ("submit.go", "go run submit.go", "go version"),
    "Java": ("Submit.java", "java Submit.java", "java -version"),
    "PHP": ("submit.php", "php submit.php", "php -r 'exit((int) !extension_loaded(\"curl\"));'"),
    "Ruby": ("submit.rb", "ruby submit.rb", "ruby -rnet/http -e 1"),
    "Perl": ("submit.pl", "perl submit.pl", "perl -MLWP -MJSON::PP -e 1"),
    "R": ("submit.R", "Rscript submit.R", "Rscript -e 'library(httr2)'"),
}
TIMEOUT_S = 240


def programs() -> dict[str, str]:
    """Return the program of each section that has one, by heading."""
    sections = {match[1]: PROGRAM.search(match[2]) for match in SECTION.finditer(PAGE)}
    return {heading: found[1] for heading, found in sections.items() if found}


async def shell(command: str, folder: Path) -> tuple[int | None, str]:
    """Run a command in a folder, and return its exit status and its output."""
    process = await asyncio.create_subprocess_exec(
        *("bash", "-c", command),
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": os.environ.get("HOME", "/"), "LANG": "C.UTF-8"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
    return process.returncode, output.decode(errors="replace")


def test_each_language_of_the_page_has_a_runtime() -> None:
    assert programs().keys() == RUNTIMES.keys()


@pytest.mark.parametrize("language", RUNTIMES)
async def test_program_submits_waits_fetches_and_cancels(
    server: Service, portal: Portal, tmp_path: Path, language: str
) -> None:
    file, command, check = RUNTIMES[language]
    folder = tmp_path / "portal"
    (folder / "data").mkdir(parents=True)
    status, _ = await shell(check, folder)
    if shutil.which(command.split()[0]) is None or status != 0:
        pytest.skip(f"no runtime here for {language}")
    # The second job runs until it is cancelled.
    (folder / "run.sh").write_text(
        f"mkdir {tmp_path}/first || sleep 600\ncat data/größe.txt > out.txt\n"
    )
    (folder / "data" / "größe.txt").write_text("drei kleine Wörter")
    program = programs()[language].replace("localhost:5000", server.url.removeprefix("http://"))
    program = program.replace('"localhost", 5000', f'"127.0.0.1", {server.url.rpartition(":")[2]}')
    (folder / file).write_text(program)
    status, output = await shell(command, folder)
    assert status == 0, output
    with zipfile.ZipFile(folder / "results.zip") as results:
        assert results.read("out.txt").decode() == "drei kleine Wörter"
    assert (await portal.state(2))["status"] == "Killed"
