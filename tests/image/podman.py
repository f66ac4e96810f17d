"""Containers of the image, as scripts/test-image.sh has built it, run by podman in that script's own storage.

There is no network of a container's own here, so each one has this machine's, and a port that nobody else has.
"""

import json
import os
import resource
import shlex
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from tests.e2e.service import Calls, free_port, wait_for

PODMAN = shlex.split(os.environ.get("TEST_IMAGE", ""))
UID = 10001
# Docker's --read-only leaves no folder writable, podman's does unless it is told.
READ_ONLY = ("--read-only", "--read-only-tmpfs=false")
HARDENED = (*READ_ONLY, "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges")
LIMIT_S = 60.0


def _limit(name: str, kind: int, wanted: int) -> str:
    hard = resource.getrlimit(kind)[1]
    value = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    return f"{name}={value}:{value}"


# By itself podman asks for higher limits than a virtual machine may set, and for systemd to time health checks.
_ALWAYS = (
    "--network", "host", "--no-healthcheck", "--log-driver", "k8s-file",
    "--ulimit", _limit("nofile", resource.RLIMIT_NOFILE, 20_000),
    "--ulimit", _limit("nproc", resource.RLIMIT_NPROC, 4096),
)  # fmt: skip


def podman(*arguments: str, limit_s: float = LIMIT_S, is_checked: bool = True) -> subprocess.CompletedProcess[str]:
    """Run one command of podman to its end."""
    done = subprocess.run(
        [*PODMAN, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=limit_s, check=False
    )
    if is_checked:
        assert done.returncode == 0, f"podman {' '.join(arguments)}\n{done.stdout}{done.stderr}"
    return done


def inspected(image: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(podman("image", "inspect", image).stdout)[0]
    return found


@dataclass
class Container(Calls):
    """One that was started. `port` is the website's."""

    name: str
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def state(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(podman("container", "inspect", self.name).stdout)[0]["State"]
        return found

    @property
    def log(self) -> str:
        """Return both streams: podman prints each to its own."""
        done = podman("logs", self.name)
        return done.stdout + done.stderr

    @property
    def main(self) -> psutil.Process:
        """The container's process 1."""
        return psutil.Process(int(self.state["Pid"]))

    def processes(self) -> list[psutil.Process]:
        main = self.main
        return [main, *main.children(recursive=True)]

    def process(self, of: str) -> psutil.Process:
        """The oldest process with this in its command line: what it starts has its line, too."""
        found = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                if of in " ".join(process.cmdline()):
                    found.append((process.create_time(), process.pid, process))
        assert found, f"no process of {self.name} has {of} in its command line"
        return min(found)[2]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Run a command in it, to its end, whatever its status."""
        return podman("exec", self.name, *command, is_checked=False)

    def wait_until_healthy(self, *check: str, limit_s: float = LIMIT_S) -> None:
        """Run its health check by hand until it succeeds."""

        def has_begun() -> bool:
            assert self.state["Running"], self.log
            return " is on http" in self.log or "the supervisor runs" in self.log

        def is_healthy() -> bool:
            assert self.state["Running"], self.log
            return self.run(*(check or ("python3", "/opt/exercise/healthcheck"))).returncode == 0

        if not check or "/opt/exercise/healthcheck" in check:
            wait_for(has_begun, f"the begin of {self.name}", limit_s)  # each check is a Python to start
        wait_for(is_healthy, f"the health of {self.name}", limit_s)

    def stop(self) -> int:
        """`podman stop`: SIGTERM, and SIGKILL after its grace time. Its exit status."""
        podman("stop", self.name, limit_s=2 * LIMIT_S)
        return int(self.state["ExitCode"])

    def kill(self) -> None:
        podman("kill", "--signal", signal.SIGKILL.name, self.name)
        wait_for(lambda: not self.state["Running"], f"the end of {self.name}")

    def wait(self, limit_s: float = LIMIT_S) -> int:
        """Its exit status, when it ends by itself."""
        wait_for(lambda: self.state["Status"] == "exited", f"the end of {self.name}", limit_s)
        return int(self.state["ExitCode"])


@dataclass
class Containers:
    """What a test starts, and the volumes that it names: removed after it."""

    containers: list[Container] = field(default_factory=list)
    volumes: set[str] = field(default_factory=set)

    def run(
        self,
        *command: str,
        image: str = "exercise",
        name: str = "",
        options: Sequence[str] = (),
        settings: Mapping[str, str] | None = None,
        mounts: Sequence[str] = (),
    ) -> Container:
        """`podman run --detach`. A mount is `volume:/path`, `/folder:/path`, or either with options behind."""
        port = free_port()
        own = {"HOST": "127.0.0.1", "PORT": str(port), **(settings or {})}
        container = Container(name or f"test-{len(self.containers)}", int(own["PORT"]))
        self.containers.append(container)
        self.volumes |= {mount.split(":")[0] for mount in mounts if not mount.startswith("/")}
        environment = (word for key, value in own.items() for word in ("--env", f"{key}={value}"))
        mounted = (word for mount in mounts for word in ("--volume", mount))
        podman(
            "run", "--detach", "--name", container.name, *_ALWAYS, *environment, *mounted, *options, image, *command
        )
        return container

    def volume(self, name: str) -> Path:
        """Where it lies on this machine."""
        return Path(podman("volume", "inspect", "--format", "{{.Mountpoint}}", name).stdout.strip())

    def end(self) -> None:
        for container in self.containers:
            print(f"--- {container.name}")
            with suppress(AssertionError):
                print(container.log)
        for container in reversed(self.containers):
            podman("rm", "--force", "--volumes", "--time", "0", container.name, is_checked=False)
        for name in self.volumes:
            podman("volume", "rm", "--force", name, is_checked=False)


def files_below(folder: Path) -> Iterator[Path]:
    """All that is there, links not followed."""
    for parent, folders, names in os.walk(folder):
        yield from (Path(parent) / name for name in (*folders, *names))
