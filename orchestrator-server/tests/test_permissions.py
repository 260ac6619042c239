"""Permissions: files of the server are readable by its own user only, with any umask."""

import os
from collections.abc import Iterator

import pytest

from running_server import StartServer, in_folders


@pytest.fixture
def open_umask() -> Iterator[None]:
    """Set the umask of most systems, with which other users may read files."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@in_folders
@pytest.mark.usefixtures("open_umask")
@pytest.mark.parametrize("folder_is_there", [False, True])
async def test_database_and_files_of_jobs_with_an_open_umask_are_private(
    start_server: StartServer, tmp_path_factory: pytest.TempPathFactory, folder_is_there: bool
) -> None:
    root = tmp_path_factory.mktemp("places")
    data = root / "data"
    if folder_is_there:
        data.mkdir(mode=0o755)
    server = await start_server(
        "http://127.0.0.1:9", DATA_PATH=str(data), DB_PATH=str(root / "db.sqlite")
    )
    await server.submit()
    modes = {path.name: path.stat().st_mode & 0o777 for path in (*root.iterdir(), *data.iterdir())}
    assert modes.pop("data") == (0o755 if folder_is_there else 0o700), (
        "an existing folder keeps its mode"
    )
    assert {modes.pop(name) for name in ("db.sqlite", "db.sqlite-wal", "db.sqlite-shm")} == {0o600}
    assert len(modes) == 2, "incoming uploads, and the job"
    assert set(modes.values()) == {0o700}
