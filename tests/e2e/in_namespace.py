"""A service in a network and with an /etc of its own, where the file of the name servers is replaced.

unshare --mount --net python -m tests.e2e.in_namespace FOLDER [NAMES_AWAY_S]

Prints JSON: seconds until every capture was sampled again, by what was done. /etc/resolv.conf is a link to
FOLDER/run/resolv.conf, as it is one to a folder below /run on most machines.
"""

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from dnslib import QTYPE, RR, A, DNSRecord
from dnslib.server import BaseResolver, DNSHandler, DNSLogger, DNSServer

from tests.camera.clip import Scene, encode
from tests.camera.server import ScriptedCamera
from tests.e2e.rows import Rows
from tests.e2e.service import Service, gunicorn, wait_for

COUNT = 8
FIRST, SECOND = "127.0.0.53", "127.0.0.54"
LIMIT_S = 90.0
SECRET = "secret"
REPLACED = re.compile(r"recorder replaced reason='(.*)'")
_SCENE = Scene(160, 120, (120.0, 60.0, 200.0, 90.0), fps=10, gop_s=0.5)


class NameServer(BaseResolver):  # type: ignore[misc]  # it comes without types
    """Knows cam-0.test and its like while `is_up`; else it says that there is no such name."""

    def __init__(self, address: str, *, is_up: bool) -> None:
        self.is_up = is_up
        self.configuration = f"nameserver {address}\noptions timeout:1 attempts:1\n"
        DNSServer(self, address=address, port=53, logger=DNSLogger(logf=lambda line: None)).start_thread()

    def resolve(self, request: DNSRecord, handler: DNSHandler) -> DNSRecord:
        reply, question = request.reply(), request.q
        if not self.is_up:
            reply.header.rcode = 3  # NXDOMAIN
        elif question.qtype == QTYPE.A and str(question.qname).endswith(".test."):
            reply.add_answer(RR(question.qname, QTYPE.A, rdata=A("127.0.0.1"), ttl=1))
        return reply


def prepare(folder: Path) -> Path:
    """The machine's own network and /etc; the folder of resolv.conf."""
    run, etc = folder / "run", folder / "etc"
    run.mkdir()
    run.chmod(0o755)
    # As a user who is not root some files cannot be copied: nothing here needs them.
    subprocess.run(["cp", "-a", "/etc", etc], check=False, stderr=subprocess.DEVNULL)
    (etc / "resolv.conf").unlink(missing_ok=True)
    (etc / "resolv.conf").symlink_to(run / "resolv.conf")
    (etc / "nsswitch.conf").write_text("hosts: files dns\n")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["mount", "--bind", etc, "/etc"], check=True)
    return run


def write(path: Path, text: str) -> None:
    """Beside it, and by rename, as the programs do whose file it is."""
    beside = path.with_name(".new")
    beside.write_text(text)
    beside.chmod(0o644)
    beside.rename(path)


def replace_folder(run: Path, text: str) -> None:
    new = run.with_name("run.new")
    new.mkdir()
    write(new / "resolv.conf", text)
    run.rename(run.with_name("run.old"))
    new.rename(run)
    # Every user may read this, but a setting names it: recorders that start from now on may not read the folder.
    (run / "secret").touch(mode=0o644)
    (run.parent / SECRET).symlink_to(run / "secret")


class Trial:
    """Captures of cameras with names; each step ends when all are sampled again, without a connection from before."""

    def __init__(self, service: Service, cameras: list[ScriptedCamera], rows: Rows) -> None:
        self.service = service
        self.cameras = cameras
        self.took_s: dict[str, float] = {}
        self.rows = rows
        self.captures = [
            service.begin(camera.url.replace("127.0.0.1", f"cam-{n}.test"), interval="0.5")
            for n, camera in enumerate(cameras)
        ]
        wait_for(lambda: self.rows.are_sampled(self.captures, 0.0), "the first samples", LIMIT_S)

    def step(self, what: str, change: Callable[[], object]) -> list[str]:
        """The reasons of the recorders that were replaced."""
        before = self.rows.captures()
        known = len(REPLACED.findall(self.service.log))
        change()
        for camera in self.cameras:
            camera.hang_up()
        since, began_s = time.time(), time.monotonic()
        wait_for(lambda: self.rows.are_sampled(self.captures, since), f"samples after: {what}", LIMIT_S)
        self.took_s[what] = time.monotonic() - began_s
        after = self.rows.captures()
        assert all(after[pk].samples > before[pk].samples for pk in self.captures), "samples were forgotten"
        return REPLACED.findall(self.service.log)[known:]


def names_away(trial: Trial, names: NameServer, away_s: float) -> None:
    """The status stays, each recorder is replaced once, and all go on when the names are back."""
    names.is_up = False
    for camera in trial.cameras:
        camera.hang_up()
    known = len(REPLACED.findall(trial.service.log))
    end_s = time.monotonic() + away_s
    wait_for(lambda: all(map(is_unresolved(trial), trial.captures)), "unreachable", LIMIT_S)
    while time.monotonic() < end_s:
        assert all(map(is_unresolved(trial), trial.captures))
        time.sleep(1)
    reasons = REPLACED.findall(trial.service.log)[known:]
    print(f"away for {away_s:g} s: {len(reasons)} replaced, {sorted(set(reasons))}", file=sys.stderr)
    since, began_s = time.time(), time.monotonic()
    names.is_up = True
    wait_for(lambda: trial.rows.are_sampled(trial.captures, since), "samples after the names are back", LIMIT_S)
    trial.took_s["names away"] = time.monotonic() - began_s


def is_unresolved(trial: Trial) -> Callable[[int], bool]:
    def holds(capture: int) -> bool:
        error = trial.service.capture(capture)["error"]
        return bool(error) and error["code"] == "unreachable" and "cannot be resolved" in error["message"]

    return holds


def main(folder: Path, away_s: float) -> dict[str, float]:
    run = prepare(folder)
    first, second = NameServer(FIRST, is_up=True), NameServer(SECOND, is_up=False)
    write(run / "resolv.conf", first.configuration)
    clip = encode(_SCENE)
    with ExitStack() as stack:
        cameras = [stack.enter_context(ScriptedCamera(clip, path=f"c{n}", live=True)) for n in range(COUNT)]
        service = stack.enter_context(gunicorn(folder / "service", ANY_SECRET_FILE=str(folder / SECRET)))
        trial = Trial(service, cameras, stack.enter_context(Rows(f"sqlite:///{folder}/service/data/db.sqlite3")))
        first.is_up, second.is_up = False, True  # so that a recorder needs what the new file says
        reasons = trial.step("file renamed", lambda: write(run / "resolv.conf", second.configuration))
        assert reasons == [], "the folder of the link is open: no recorder has to be replaced"
        first.is_up, second.is_up = True, False
        reasons = trial.step("folder renamed", lambda: replace_folder(run, first.configuration))
        assert sorted(reasons) == ["/etc/resolv.conf was replaced"] * COUNT
        first.is_up, second.is_up = False, True
        reasons = trial.step("file renamed beside a secret", lambda: write(run / "resolv.conf", second.configuration))
        assert sorted(reasons) == ["/etc/resolv.conf was replaced"] * COUNT
        if away_s:
            names_away(trial, second, away_s)
    return trial.took_s


if __name__ == "__main__":
    os.umask(0o022)
    print(json.dumps(main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0)))
