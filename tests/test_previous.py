"""Finding the previous release: what a clone lacks is fetched, and what cannot be is said."""

import re
from pathlib import Path

import pytest

from tests import previous
from tests.previous import Missing, fetch, git


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A repository with three commits."""
    repository = tmp_path / "origin"
    repository.mkdir()
    assert git(repository, "init", "--quiet").returncode == 0
    for number in range(3):
        (repository / "file").write_text(str(number))
        said = git(repository, "add", "file").stderr
        author = ("-c", "user.name=a", "-c", "user.email=a@localhost", "-c", "commit.gpgsign=false")
        done = git(repository, *author, "commit", "--quiet", f"--message={number}")
        assert done.returncode == 0, said + done.stderr
    return repository


def first_commit(origin: Path) -> str:
    return git(origin, "rev-list", "--max-parents=0", "HEAD").stdout.decode().strip()


def clone(origin: Path, *options: str) -> Path:
    made = origin.with_name("clone")
    done = git(origin, "clone", "--quiet", *options, f"file://{origin}", str(made))
    assert done.returncode == 0, done.stderr
    return made


def test_the_recorded_commit_has_all_its_digits_and_is_here() -> None:
    assert re.fullmatch("[0-9a-f]{40}", previous.commit())
    assert previous.migrations()[0] == "0001_initial"


def test_a_shallow_clone_fetches_that_commit_alone(origin: Path) -> None:
    shallow, wanted = clone(origin, "--depth=1"), first_commit(origin)
    assert git(shallow, "cat-file", "-e", wanted).returncode != 0
    fetch(shallow, wanted)
    assert git(shallow, "show", f"{wanted}:file").stdout == b"0"
    assert git(shallow, "rev-list", "--count", "HEAD").stdout.strip() == b"1"
    fetch(shallow, wanted)  # nothing to do


def test_a_server_that_gives_no_single_commit_is_asked_for_all(origin: Path) -> None:
    """As before version 2 of git's protocol."""
    shallow, wanted = clone(origin, "--depth=1"), first_commit(origin)
    assert git(shallow, "config", "protocol.version", "0").returncode == 0
    fetch(shallow, wanted)
    assert git(shallow, "rev-list", "--count", "HEAD").stdout.strip() == b"3"


def test_what_cannot_be_fetched_is_said(origin: Path, tmp_path: Path) -> None:
    wanted = first_commit(origin)
    begin = f"The upgrade is tested from the previous release, commit {wanted}, which this clone lacks: "
    shallow = clone(origin, "--depth=1")
    origin.rename(origin.with_name("gone"))
    with pytest.raises(Missing, match=re.escape(f"{begin}git cannot fetch it from origin: ")):
        fetch(shallow, wanted)
    assert git(shallow, "remote", "remove", "origin").returncode == 0
    with pytest.raises(Missing, match=re.escape(f"{begin}this clone has no remote to fetch it from.")):
        fetch(shallow, wanted)
    folder = tmp_path / "folder"
    folder.mkdir()
    with pytest.raises(Missing, match=re.escape(f"{begin}{folder} is not a git clone.")):
        fetch(folder, wanted)
