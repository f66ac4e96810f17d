"""`make audit` with an advisory database of the test's: a finding fails, silence does not pass for none."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.service import free_port

ROOT = Path(__file__).resolve().parents[2]
PINS = {
    "requirements.txt": "sqlparse==0.1",
    "requirements-s3.txt": "jmespath==0.2",
    "requirements-dev.txt": "tqdm==0.3",
}
KNOWN = {"id": "PYSEC-0000-1", "summary": "It falls over.", "affected": []}


class Advisories(http.server.ThreadingHTTPServer):
    """Answers as OSV does. `affected`: names that have a vulnerability; `asked`: what was asked about."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.affected: set[str] = set()
        self.asked: list[tuple[str, str]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/query"


class _Answers(http.server.BaseHTTPRequestHandler):
    server: Advisories

    def do_POST(self) -> None:
        asked: Any = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        name = asked["package"]["name"]
        self.server.asked.append((name, asked["version"]))
        body = json.dumps({"vulns": [KNOWN]} if name in self.server.affected else {}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *words: object) -> None:
        return None


@pytest.fixture
def advisories() -> Iterator[Advisories]:
    with Advisories() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join(30)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """With one pin in each file."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/audit.sh", tmp_path / "scripts")
    for name, pin in PINS.items():
        (tmp_path / name).write_text(f"{pin} --hash=sha256:{'0' * 64}\n")
    return tmp_path


def audit(checkout: Path, url: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """With the environment that runs the tests, and no proxy in between."""
    env = {"PATH": os.environ["PATH"], "HOME": str(checkout), "VENV": sys.prefix, "PIP_AUDIT_OSV_URL": url}
    return subprocess.run(
        [checkout / "scripts/audit.sh"], env=env | variables, capture_output=True, text=True, timeout=120
    )


def test_every_pin_is_asked_about_and_a_finding_fails(checkout: Path, advisories: Advisories) -> None:
    done = audit(checkout, advisories.url)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no vulnerability is known" in done.stdout
    assert sorted(advisories.asked) == [("jmespath", "0.2"), ("sqlparse", "0.1"), ("tqdm", "0.3")]
    advisories.affected = {"jmespath"}
    done = audit(checkout, advisories.url)
    assert done.returncode == 1
    assert "jmespath" in done.stdout
    assert "PYSEC-0000-1" in done.stdout


def test_a_database_that_is_not_reached_is_told_in_one_line(checkout: Path, advisories: Advisories) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/query"
    done = audit(checkout, nobody)
    assert done.returncode == 0, done.stdout + done.stderr
    (line,) = done.stdout.splitlines()
    assert line.startswith("audit: NOT CHECKED: ")
    assert all(name in line for name in PINS)
    assert done.stderr == ""


def test_a_pin_that_cannot_be_read_is_no_network_that_is_away(checkout: Path, advisories: Advisories) -> None:
    (checkout / "requirements.txt").write_text("sqlparse==0.1\n")
    done = audit(checkout, advisories.url)
    assert done.returncode == 1
    assert "cannot be read" in done.stdout
    assert advisories.asked == []


def test_it_is_one_of_the_steps_of_make_lint() -> None:
    assert "\nstep scripts/audit.sh\n" in (ROOT / "scripts/lint.sh").read_text()
