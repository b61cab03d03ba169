"""The private folder for sockets."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from node.runtime_dir import MAX_PARENT_BYTES, RuntimeDir, best_parent

LEAVE_ONE_BEHIND = """
import os, sys
from pathlib import Path
from node.runtime_dir import RuntimeDir
folder = RuntimeDir(Path(sys.argv[1]))
print(folder.open(), flush=True)
os.kill(os.getpid(), 9)
"""


def test_it_is_private_and_goes_away(tmp_path: Path) -> None:
    folder = RuntimeDir(tmp_path)

    path = folder.open()

    assert path.stat().st_mode & 0o777 == 0o700
    assert folder.open() == path
    folder.close()
    folder.close()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_node_left_is_cleared_away_and_what_a_live_one_uses_is_not(tmp_path: Path) -> None:
    root = Path(__file__).parent.parent.parent
    command = [sys.executable, "-c", LEAVE_ONE_BEHIND, str(tmp_path)]
    left = Path(subprocess.run(command, cwd=root, capture_output=True, text=True, check=False).stdout.strip())
    assert left.is_dir()
    alive = RuntimeDir(tmp_path)
    in_use = alive.open()

    another = RuntimeDir(tmp_path)
    path = another.open()

    assert sorted(tmp_path.iterdir()) == sorted([in_use, path])
    alive.close()
    another.close()


def test_a_folder_of_somebody_elses_making_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "shoal-notes").mkdir()
    folder = RuntimeDir(tmp_path)

    folder.open()

    assert (tmp_path / "shoal-notes").is_dir()
    folder.close()


@pytest.mark.parametrize(
    "unfit",
    [
        pytest.param("", id="not set"),
        pytest.param("/no/such/folder", id="not there"),
        pytest.param("/tmp/" + "x" * MAX_PARENT_BYTES, id="too long for a socket"),
    ],
)
def test_an_unfit_runtime_folder_of_the_user_is_not_used(unfit: str) -> None:
    assert str(best_parent({"XDG_RUNTIME_DIR": unfit})) != unfit


def test_the_users_own_runtime_folder_is_preferred() -> None:
    assert best_parent({"XDG_RUNTIME_DIR": "/dev/shm"}) == Path("/dev/shm")
    assert os.access("/dev/shm", os.W_OK)
