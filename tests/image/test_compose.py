"""compose.yaml's services as containers of podman: on this machine's network, with ports and names of their own."""

import random
import re
import time
from dataclasses import dataclass, field
from typing import Any

import psycopg

from tests.camera.clip import Scene
from tests.camera.server import ScriptedCamera
from tests.e2e.page import Page, marks
from tests.e2e.service import wait_for
from tests.image.compose import SERVICES, environment_of, options_of
from tests.image.podman import Container, Containers, podman

DARKER = tuple(250.0 - 2 * second for second in range(120))
TAKEOVER_S = 20.0


@dataclass
class Project:
    """`docker compose up`. `dotenv` is what .env holds."""

    containers: Containers
    dotenv: dict[str, str]
    # Nobody listens there, whatever runs on this machine; the port of DATABASE_URL and of pgpass stays.
    database_host: str = field(
        default_factory=lambda: ".".join(["127", *(str(random.randrange(2, 250)) for _ in range(3))])
    )

    def run(self, service: str, name: str = "", *command: str, **settings: str) -> Container:
        said = SERVICES[service]
        image = {"exercise": "exercise"}.get(said["image"], f"docker.io/library/{said['image']}")
        return self.containers.run(
            *(command or said.get("command", ())),
            image=image,
            name=name or service,
            options=[*options_of(said, self.dotenv), "--add-host", f"database:{self.database_host}"],
            settings={**environment_of(said, self.dotenv), "CAPTURE_HOST_NAME": name or service, **settings},
            mounts=said["volumes"],
        )

    def wait_until_healthy(self, container: Container, service: str) -> None:
        kind, *check = SERVICES[service]["healthcheck"]["test"]
        assert kind == "CMD"
        here = [word.replace("127.0.0.1", self.database_host) if service == "database" else word for word in check]
        container.wait_until_healthy(*here)

    def start_others(self) -> None:
        """In the order that depends_on asks for."""
        assert self.run("keys").wait() == 0
        database = self.run("database", "database", "postgres", "-c", f"listen_addresses={self.database_host}")
        self.wait_until_healthy(database, "database")

    def host_of(self, capture: int) -> str:
        """The host that claims it, empty if none does."""
        password = (self.containers.volume("keys") / "database").read_text()
        query = "SELECT host_name FROM streams_capture WHERE id = %s AND claimed_by_id IS NOT NULL"
        with psycopg.connect(
            host=self.database_host, user="capture", dbname="capture", password=password, connect_timeout=10
        ) as connection:
            row = connection.execute(query, [capture]).fetchone()
        return str(row[0]) if row else ""


def test_a_killed_supervisor_costs_no_capture_and_a_wrong_password_lets_nobody_in(containers: Containers) -> None:
    project = Project(containers, {"CAPTURE_SLOTS": "2"})
    project.start_others()
    stranger = project.run("web", "stranger", PGPASSFILE="/keys/none", DATABASE_URL=with_password("wrong"))
    web = project.run("web")
    hosts = {name: project.run("supervise", name) for name in ("supervise-1", "supervise-2", "supervise-3")}
    project.wait_until_healthy(web, "web")
    for host in hosts.values():
        project.wait_until_healthy(host, "supervise")
    assert_halves(web, *hosts.values())
    assert_confined(web, 1 << 30)

    scene = Scene(320, 240, DARKER, fps=10)
    with ScriptedCamera(scene, live=True) as first, ScriptedCamera(scene, live=True, path="other") as second:
        capture = web.begin(first.url)
        other = web.begin(second.url)
        for number in (capture, other):
            web.wait_for_samples(number, 4)
        holder = wait_for(lambda: project.host_of(capture), "a claim")
        hosts[holder].kill()
        killed_s = time.monotonic()
        heir = wait_for(lambda: project.host_of(capture) not in ("", holder) and project.host_of(capture),
                        "another host's claim", TAKEOVER_S)  # fmt: skip
        print(f"{heir} has taken over {time.monotonic() - killed_s:.1f} s after the kill of {holder}")
        assert heir in hosts
        wait_for(lambda: first.clients == 1, "that the capture goes on")
        samples = web.capture(capture)["samples"]
        web.wait_for_samples(capture, max(12, samples + 2))
        assert web.run("python3", "/opt/exercise/healthcheck").returncode == 0, "two supervisors are enough"
        page = web.end("demo", "text/html")
        assert web.end("other", "text/html").status_code == 200
    assert page.status_code == 200
    shown = marks(Page(page.text).grid(), 9)
    assert shown == sorted(shown), "it becomes darker: the brightest come first"
    assert shown[3] - shown[0] <= 4, "what was captured before the kill is there"

    assert stranger.wait(120) == 1
    assert "password authentication failed" in stranger.log
    assert "Booting worker" not in stranger.log
    for name, container in {"web": web, **hosts}.items():
        if name != holder:
            assert container.stop() == 0, container.log
    assert Container("database", 0).stop() == 0
    assert "database system is shut down" in Container("database", 0).log


def with_password(password: str) -> str:
    default = SERVICES["web"]["environment"]["DATABASE_URL"]
    url = re.fullmatch(r"\$\{DATABASE_URL:-(.+)\}", default)
    assert url
    return url[1].replace("capture@", f"capture:{password}@")


def assert_halves(web: Container, *hosts: Container) -> None:
    """A role runs its half of serve.sh alone."""

    def parts(container: Container) -> set[str]:
        lines = [" ".join(process.cmdline()) for process in container.processes()]
        return {
            part for part in ("gunicorn", "manage.py supervise") for line in lines if part in line
        }  # fmt: skip

    assert parts(web) == {"gunicorn"}
    for host in hosts:
        assert parts(host) == {"manage.py supervise"}


def assert_confined(container: Container, memory_bytes: int) -> None:
    """What podman made of the options, not what it was asked for."""
    found: Any = podman("container", "inspect", "--format", "{{json .HostConfig}}", container.name).stdout
    assert f'"Memory":{memory_bytes}' in found.replace(" ", "")
    status = (container.run("cat", "/proc/1/status")).stdout
    assert re.search(r"NoNewPrivs:\s1\n", status)
    assert re.search(r"CapBnd:\s0+\n", status)
    assert container.run("touch", "/app/try").returncode != 0
