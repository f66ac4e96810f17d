"""The files that names and authorities are looked up in, replaced under a process that Landlock shuts in."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streams.engine import lookups
from streams.engine.address import parse

ROOT = Path(__file__).resolve().parents[2]


class Reader:
    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def ask(self, path: Path) -> tuple[bool, str]:
        """Whether it can read that path, and which file it names as replaced."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(f"{path}\n")
        self._process.stdin.flush()
        is_read, replaced = json.loads(self._process.stdout.readline())
        return is_read, replaced


@contextmanager
def shut_in(name_file: Path, *closed: Path, **variables: Path | str) -> Iterator[Reader]:
    environment = {"PATH": os.environ["PATH"]} | {name: str(value) for name, value in variables.items()}
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.engine.shut_reader", str(name_file), *map(str, closed)],
        cwd=ROOT, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert process.stdout
        assert "ready" in process.stdout.readline()
        yield Reader(process)
    finally:
        process.communicate(timeout=60)


@pytest.fixture
def folder() -> Iterator[Path]:
    """Every user may look into it, and it is not among what a recorder may read anyway."""
    with tempfile.TemporaryDirectory(dir="/var/tmp") as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


def write(path: Path, text: str = "nameserver 127.0.0.53\n", mode: int = 0o644) -> Path:
    """Beside it, and by rename."""
    path.parent.mkdir(mode=0o755, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text)
    beside.chmod(mode)
    return beside.rename(path)


def linked(folder: Path, target: Path) -> Path:
    link = folder / "etc" / "resolv.conf"
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(target)
    return link


# --- a file that is replaced ------------------------------------------------------------------------


def test_a_file_that_is_replaced_behind_a_link_can_be_read(folder: Path) -> None:
    """Behind two of them, of which the second is in a folder of its own."""
    target = write(folder / "run" / "stub.conf")
    (folder / "links").mkdir()
    (folder / "links" / "second").symlink_to("../run/stub.conf")
    link = linked(folder, folder / "links" / "second")
    with shut_in(link) as reader:
        assert reader.ask(link) == (True, "")
        write(target)
        assert reader.ask(link) == (True, "")
        write(folder / "links" / "second")
        assert reader.ask(link) == (True, "")


@pytest.mark.parametrize("kind", ["a secret", "a closed path", "a closed folder around it"])
def test_one_in_a_folder_that_stays_closed_is_named(folder: Path, kind: str) -> None:
    target, neighbour = write(folder / "run" / "stub.conf"), write(folder / "run" / "other")
    closed = {"a secret": (), "a closed path": (neighbour,), "a closed folder around it": (folder,)}[kind]
    if kind == "a secret":
        neighbour.chmod(0o600)
    link = linked(folder, target)
    with shut_in(link, *closed) as reader:
        assert reader.ask(link) == (True, "")
        assert reader.ask(neighbour) == (False, "")
        write(target)
        assert reader.ask(link) == (False, str(link))
        assert reader.ask(neighbour)[0] is False


def test_one_whose_folder_is_replaced_or_comes_later_is_named(folder: Path) -> None:
    target = folder / "run" / "stub.conf"
    link = linked(folder, target)
    with shut_in(link) as reader:
        assert reader.ask(link) == (False, ""), "where nothing is nothing can be replaced"
        write(target)
        assert reader.ask(link) == (False, str(link))
    with shut_in(link) as reader:
        assert reader.ask(link) == (True, "")
        target.parent.rename(folder / "old")
        assert reader.ask(link) == (False, ""), "nor where it is missing for a moment"
        write(target)
        assert reader.ask(link) == (False, str(link))


def test_authorities_that_are_replaced_are_named_and_what_lies_beside_them_stays_closed(folder: Path) -> None:
    """A key often lies there. That every user may read it makes no difference: secrets of a container have 0444."""
    file, key, names = write(folder / "ca.pem"), write(folder / "key.pem"), write(folder / "etc" / "resolv.conf")
    many = folder / "many"
    write(many / "a.pem")
    with shut_in(names, SSL_CERT_FILE=file, SSL_CERT_DIR=many) as reader:
        assert [reader.ask(path)[0] for path in (file, many, key, folder)] == [True, True, False, False]
        write(many / "b.pem")
        assert reader.ask(many / "b.pem") == (True, "")
        write(file)
        assert reader.ask(file) == (False, str(file))
    with shut_in(names, SSL_CERT_DIR=many) as reader:
        many.rename(folder / "old")
        write(many / "a.pem")
        assert reader.ask(many / "a.pem") == (False, str(many))


def test_a_file_that_no_recorder_can_read_is_not_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or each recorder would end for the sake of another one that cannot read it either."""
    monkeypatch.setattr(os, "open", closed_to_all)
    path, seen = write(tmp_path / "hosts"), lookups.Seen()
    seen.note(str(path), lookups.identity_of(str(path)))
    assert seen.replaced([str(path)]) == ""
    write(path)
    assert seen.replaced([str(path)]) == str(path)
    assert seen.replaced([]) == ""


def closed_to_all(path: str, *_: object) -> int:
    raise PermissionError(path)


# --- which folders are open -------------------------------------------------------------------------


def test_links_are_followed_one_by_one(folder: Path) -> None:
    (folder / "a").mkdir()
    (folder / "b").symlink_to("a")
    (folder / "first").symlink_to(folder / "b" / "second")
    (folder / "a" / "second").symlink_to("../nowhere/file")
    (folder / "round").symlink_to("round")
    assert lookups.link_folders(str(folder / "first")) == [folder / "a", folder / "nowhere"]
    assert lookups.link_folders(str(folder / "a")) == []
    assert not {folder / "a", folder / "nowhere"} & {*lookups.link_folders(str(folder / "round"))}


def test_a_folder_is_public_if_it_holds_nothing_of_this_user_alone(folder: Path) -> None:
    public = folder / "run"
    (public / "netif").mkdir(parents=True, mode=0o755)
    write(public / "netif" / "2")
    (public / "link").symlink_to("/etc/shadow")
    assert lookups.is_public(public)
    assert not lookups.is_public(public, [public / "netif" / "secret"])
    assert not lookups.is_public(public, [folder])
    assert lookups.is_public(public, [folder / "data"])
    write(public / "netif" / "3", mode=0o600)
    assert not lookups.is_public(public)
    (public / "netif" / "3").unlink()
    (public / "netif").chmod(0o700)
    assert not lookups.is_public(public)
    (public / "netif").chmod(0o755)
    for number in range(lookups._MAX_ENTRIES):
        (public / str(number)).touch(mode=0o644)
    assert not lookups.is_public(public)
    assert not lookups.is_public(folder / "nowhere")
    assert not any(map(lookups.is_public, map(Path, ("/", "/run", "/var", "/home"))))


def test_a_connection_depends_on_the_files_that_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", "/ca.pem")
    monkeypatch.setenv("SSL_CERT_DIR", "/many:/more")
    authorities = ["/ca.pem", "/many", "/more"]
    cases = [
        ("rtsp://192.0.2.1/a", True, []),
        ("rtsp://camera.example/a", True, [*lookups.NAME_FILES]),
        ("rtsps://192.0.2.1/a", True, authorities),
        ("rtsps://camera.example/a", False, [*lookups.NAME_FILES]),
        ("rtsps://camera.example/a", True, [*lookups.NAME_FILES, *authorities]),
    ]
    for url, verifies, files in cases:
        assert lookups.files_for(parse(url), verifies_certificate=verifies) == files, url
