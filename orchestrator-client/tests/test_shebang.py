"""The first line of run.sh: the options that bash gets."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_orchestrator.client.workspace.layout import Workspace
from job_orchestrator.client.workspace.shebang import read_shebang, script_command


@pytest.mark.parametrize(
    ("first_line", "options"),
    [
        ("#!/bin/bash", []),
        ("#!/bin/bash -e", ["-e"]),
        ("#!/bin/bash -e -u", ["-e", "-u"]),
        ("#! /bin/bash -euxo pipefail", ["-euxo", "pipefail"]),
        ("#!/bin/bash -e -o pipefail -O extglob", ["-e", "-o", "pipefail", "-O", "extglob"]),
        ("#!/bin/bash -l\r", ["-l"]),
        ("#!/bin/bash -e --login", ["--login", "-e"]),
        ("#!/bin/bash +o posix", ["+o", "posix"]),
        ("#!/bin/bash --", []),
        ("#!/bin/sh -", []),
        ("#!/bin/sh -eu", ["-eu"]),
        ("#!/bin/dash -e", ["-e"]),
        ("#!/bin/bash -e # comment", ["-e"]),
        ("#!/usr/local/bin/bash-5.2 -u", ["-u"]),
        ("#!/usr/bin/env bash", []),
        ("#!/usr/bin/env bash -e", ["-e"]),
        ("#!/usr/bin/env -S bash -e -u", ["-e", "-u"]),
        ("#!/usr/bin/env -Sbash -x", ["-x"]),
        ("#!/usr/bin/env --split-string=bash -x", ["-x"]),
        ("#!/bin/busybox sh -e", ["-e"]),
        ("#!/bin/zsh -f", []),
        ("set -e", []),
        ("", []),
    ],
)
def test_options_of_a_shell_are_those_of_the_first_line(
    first_line: str, options: list[str]
) -> None:
    assert read_shebang(first_line) == (tuple(options), (), "", "")


@given(st.text(alphabet="#!/bineshv -ScoO=+lux\t\r\0é", max_size=60))
def test_any_first_line_is_read(rest: str) -> None:
    shebang = read_shebang(f"#!/bin/bash {rest}")
    assert not (shebang.misused and shebang.options)


@pytest.mark.parametrize(
    ("first_line", "script", "code", "error"),
    [
        ("#!/bin/bash -u", "echo $missing; true", 1, "unbound variable"),
        ("#!/bin/bash -x", "true", 0, "+ true"),
        ("#!/bin/bash -eo pipefail", "false | true", 1, ""),
        ("#!/bin/bash -l", "shopt -q login_shell", 0, ""),
        ("#!/bin/bash --login -e", "shopt -q login_shell; false; true", 1, ""),
        ("#!/usr/bin/env -S A=1 bash -e", '[ "$A" = 1 ]; false; true', 1, ""),
    ],
)
def test_options_have_the_effect_that_bash_gives_them(
    tmp_path: Path, first_line: str, script: str, code: int, error: str
) -> None:
    workspace = Workspace(tmp_path)
    workspace.work.mkdir()
    (workspace.work / "run.sh").write_text(f"{first_line}\n{script}\n")
    ended = subprocess.run(
        script_command(workspace, shutil.which("bash") or ""),
        cwd=workspace.work,
        env={"PATH": os.environ["PATH"], "HOME": str(workspace.work)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (ended.returncode, error in ended.stderr) == (code, True)


def test_script_that_is_missing_is_reported_by_bash(tmp_path: Path) -> None:
    assert script_command(Workspace(tmp_path), "/bin/bash") == ["/bin/bash", "run.sh"]
