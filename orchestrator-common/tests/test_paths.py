"""Paths of uploaded files."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from job_orchestrator.common.protocol.paths import UnsafePath, check_path, uploaded_path


@given(st.text(max_size=40))
def test_accepted_path_stays_below_its_folder(path: str) -> None:
    allowed = True
    try:
        assert check_path(path) == path
    except UnsafePath:
        allowed = False
    if not allowed:
        return
    assert not path.startswith("/")
    assert not {"", ".", ".."} & set(path.split("/"))
    assert not any(ord(character) < 32 for character in path)


@pytest.mark.parametrize(
    ("part", "filename", "path"),
    [
        ("file", "a.txt", "a.txt"),
        ("file", "a/b.txt", "a/b.txt"),
        ("a/b.txt", "b.txt", "a/b.txt"),
        ("b.txt", "b.txt", "b.txt"),
        ("x/y", "b.txt", "b.txt"),
        ("file", "q%22.txt", "q%22.txt"),
        ("file", "/home/ada/run.sh", "run.sh"),
        ("file", "//server/share/run.sh", "run.sh"),
        ("file", "C:\\data\\in.pdb", "in.pdb"),
        ("file", "c:/data/in.pdb", "in.pdb"),
        ("file", "\\\\server\\share\\in.pdb", "in.pdb"),
        ("data/in.pdb", "/home/ada/in.pdb", "data/in.pdb"),
        ("/home/ada/in.pdb", "in.pdb", "in.pdb"),
    ],
)
def test_uploaded_path_is_the_file_name_or_the_part_name_that_ends_with_it(
    part: str, filename: str, path: str
) -> None:
    assert uploaded_path(part, filename) == path


@pytest.mark.parametrize(
    "filename",
    ["../x", "a/../x", "/home/..", "/", "/home/", "C:\\", "C:\\..", "C:run.sh\\x", "a\\b", "\\x"],
)
def test_name_that_is_not_plain_after_the_cut_is_refused(filename: str) -> None:
    with pytest.raises(UnsafePath):
        uploaded_path("file", filename)
