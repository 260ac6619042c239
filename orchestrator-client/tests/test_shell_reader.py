"""The reader of shell scripts: any text, in time linear in its length."""

import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_orchestrator.client.script_check.rules import check_script
from job_orchestrator.client.script_check.shell import read_script

PIECES = (
    "$(", ")", "`", '"', "'", "\\", "\n", " ", "#", ";", "&", "|", "<<E", "E", "<<<", "(", "{",
    "}", "[[", "]]", "=", "bash -c ", "eval ", "case x in", "\0", "é", "base64", "/dev/tcp/", "$",
)  # fmt: skip


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("a b  c", [["a", "b", "c"]]),
        ("a; b & c | d && e || f", [["a"], ["b"], ["c"], ["d"], ["e"], ["f"]]),
        ("a 'b c' \"d e\" f\\ g", [["a", "b c", "d e", "f g"]]),
        ("a # b\nc", [["a"], ["c"]]),
        ("a $# ${#x} b#c", [["a", "$#", "${#x}", "b#c"]]),
        ("a \\\n b", [["a", "b"]]),
        ('x="$(a b) c"', [["a", "b"], ["x= c"]]),
        ('"`a`" b', [["a"], ["", "b"]]),
        ("(a; b) > c", [["a"], ["b"], ["", ">", "c"]]),
        ("a <(b c)", [["a", "<"], ["b", "c"], [""]]),
        ("list=(a b)", [["list="]]),
        ("f() { a; }\n", [["{", "a"], ["}"]]),
        ("case $x in\n a|b) c;;\nesac", [["case", "$x", "in"], ["c"], ["esac"]]),
        ("[[ a || b && c ]] && d", [["d"]]),
        ("[[ a =~ (b|c) ]]; d", [["d"]]),
        ("a <<E b\nc\nE\nd", [["a", "b"], ["d"]]),
        ("a <<-'E'\n\tc\n\tE\nd", [["a"], ["d"]]),
        ("a <<E\nc", [["a"], ["c"]]),
        ("a <<A <<B\n1\nA\n2\nB\nd", [["a"], ["d"]]),
        ("sh <<E\nc\nE", [["sh"], ["c"], ["E"]]),
        ("a <<< b\nc", [["a", "<<<", "b"], ["c"]]),
        ("a 2>&1 >&2", [["a", "2>&1", ">&2"]]),
        ("a\r\nb", [["a"], ["b"]]),
    ],
)  # fmt: skip
def test_read_script_finds_the_words_of_each_command(script: str, words: list[list[str]]) -> None:
    assert [list(command.words) for command in read_script(script).commands] == words


def test_read_script_numbers_lines_from_one() -> None:
    script = read_script("a\n\n'b\nc' d\ne \\\n f\ncat <<E\nx\nE\ng\n")
    assert [(command.line, command.words[0]) for command in script.commands] == [
        (1, "a"),
        (3, "b\nc"),
        (5, "e"),
        (7, "cat"),
        (10, "g"),
    ]


@given(
    st.binary(max_size=300) | st.lists(st.sampled_from(PIECES)).map(lambda p: "".join(p).encode())
)
def test_check_any_bytes_names_a_line_of_the_script(script: bytes) -> None:
    refusal = check_script(script)
    assert refusal is None or 1 <= refusal.line <= script.count(b"\n") + 1


@pytest.mark.parametrize(
    "piece",
    [*PIECES, "a= ", "sh $(", "eval $(", "bash -c '", "<<A\n", "cat <<E\nE\n", "\\\n", "base64|"],
)
def test_check_repetitive_text_takes_linear_time(piece: str) -> None:
    # Quadratic time would be hours for this size; the time-out of a test is a minute.
    check_script((piece * 60_000)[:60_000].encode())


@pytest.mark.parametrize(
    "script",
    [
        'x="$(curl -s http://x)"',
        'echo "result: `wget -qO- x`"',
        "( sudo ls )",
        "ls | while read f; do scp $f x:; done",
        "bash -c \"bash -c 'curl x'\"",
        "eval 'curl x'",
        'eval "$(echo aGk= | base64 -d)"',
        "bash <(base64 -d x)",
        "python3.11 -c 'x'",
        "python -W ignore -Bc 'x'",
        "python3 -I -c 'x'",
        "> log curl x",
        "2>/dev/null curl x",
        "chmod 6755 x",
        "chmod -R g+s x",
        "chmod u=rws x",
        "chmod 04755 x",
        "chmod a+x,u+s x",
        "rm -rf //",
        "rm -rf --no-preserve-root /",
        "function f { curl x; }",
        "case $x in a) curl x;; esac",
        "[[ -f x ]] && curl x",
        "curl x | ]] &\na) b",
        "echo \\>&curl x",
        "nohup setsid nice -n 5 curl x",
    ],
)
def test_trap_40_what_hides_in_shell_grammar_is_refused(script: str) -> None:
    assert check_script(script.encode()) is not None


def test_trap_40_script_in_a_script_is_read_to_a_depth_that_is_honest() -> None:
    script = "ls"
    for depth in range(6):
        assert (check_script(script.encode()) is None) == (depth <= 4)
        script = f"bash -c {shlex.quote(script)}"


@pytest.mark.parametrize(
    "script",
    [
        "tools=(curl wget)",
        "case $tool in curl) echo c;; wget|nc) echo w;; esac",
        "service() { echo x; }",
        "[[ $x =~ (nc|curl) ]]",
        "[[ $x == a || curl == $x ]]",
        "echo 'a\nsudo b\nc'",
        "chmod 644 2755",
        "chmod 0644 x; chmod 1777 x; chmod a+x x",
        "perl -pe 's/a/b/' x",
        "python -m http",
        "sort -k2 x | uniq -c",
        "bash run_all.sh -c conf",
        "echo $((1<<2)); echo done",
        "env OMP_NUM_THREADS=4 gmx mdrun -nc 4",
    ],
)
def test_trap_40_what_only_looks_dangerous_is_let_through(script: str) -> None:
    assert check_script(script.encode()) is None
