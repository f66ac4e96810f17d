"""compose.yaml: what it says, and each of our containers run as it says, as processes, paths and names mapped.

There is no Docker here: images of others, volumes and networks are not run. PostgreSQL and Redis are the machine's.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import yaml
from psycopg import sql

from tests.camera.clip import Scene
from tests.camera.server import ScriptedCamera
from tests.e2e.page import Page, marks
from tests.e2e.service import Calls, free_port, wait_for
from tests.e2e.site import is_running
from tests.e2e.test_container import AS_USER, ROOT, UID, image_environment, lay_image
from tests.servers import PostgreSQL, Redis

TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = [name for name, service in SERVICES.items() if service["image"] == "exercise"]
# What settings.py and serve.sh read, and compose.yaml leaves as the image or the container has it.
KEPT = {"DATA_DIR", "MEDIA_ROOT", "HOST", "PORT", "CAPTURE_HOST_NAME", "DEBUG"}
DARKER = tuple(250.0 - 2 * second for second in range(120))


# --- what it says ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SERVICES)
def test_each_container_is_confined_restarted_and_its_log_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert service["pids_limit"] == 4000
    assert set(service["logging"]["options"]) == {"max-size", "max-file"}
    if name == "keys":
        assert service["restart"] == "no", "it ends when it is done"
    else:
        assert service["restart"] == "unless-stopped"
        assert service["healthcheck"]["test"][0] == "CMD"
        assert re.fullmatch(r"\d+s", service["stop_grace_period"])


def test_those_who_read_what_strangers_send_have_a_bound_of_memory() -> None:
    assert {name: resolved(SERVICES[name]["mem_limit"], {}) for name in ("web", "supervise")} == {
        "web": "1g",
        "supervise": "6g",
    }


def test_one_image_has_all_roles() -> None:
    assert OURS == ["web", "supervise", "keys"]
    assert {name: SERVICES[name]["build"] for name in OURS if "build" in SERVICES[name]} == {"keys": "."}
    assert [SERVICES[name]["command"] for name in OURS[:2]] == [["web"], ["supervise"]]


def test_options_are_off_unless_asked_for() -> None:
    assert {name: service["profiles"] for name, service in SERVICES.items() if "profiles" in service} == {
        "redis": ["redis"],
        "store": ["store"],
    }
    for name in OURS:
        assert not {"redis", "store"} & set(SERVICES[name].get("depends_on", ()))


def test_everybody_waits_for_the_passwords_and_ours_for_the_database() -> None:
    for name in ("web", "supervise"):
        waits = SERVICES[name]["depends_on"]
        assert waits["keys"]["condition"] == "service_completed_successfully"
        assert waits["database"]["condition"] == "service_healthy"
    assert "keys" in SERVICES["database"]["depends_on"]
    assert "keys" in SERVICES["store"]["depends_on"]


def test_any_number_of_supervisors_fits() -> None:
    """A fixed name, a fixed host name or a published port would be the first one's alone."""
    assert not {"container_name", "hostname", "ports"} & set(SERVICES["supervise"])
    assert "CAPTURE_HOST_NAME" not in SERVICES["supervise"]["environment"]


def test_only_the_website_is_reached_and_from_this_machine_alone() -> None:
    assert [name for name, service in SERVICES.items() if "ports" in service] == ["web"]
    assert [resolved(port, {}) for port in SERVICES["web"]["ports"]] == ["127.0.0.1:8000:8000"]
    assert COMPOSE["networks"]["inside"] == {"internal": True}
    for name in ("database", "redis", "store"):
        assert SERVICES[name]["networks"] == ["inside"]
    assert SERVICES["keys"]["network_mode"] == "none"


def test_data_outlives_containers_and_passwords_are_written_by_one() -> None:
    mounted = {name: service.get("volumes", []) for name, service in SERVICES.items()}
    assert mounted["web"] == mounted["supervise"] == ["data:/data", "keys:/keys:ro"]
    assert "database:/var/lib/postgresql/data" in mounted["database"]
    assert {mount.split(":")[0] for mounts in mounted.values() for mount in mounts} == set(COMPOSE["volumes"])
    assert [name for name, mounts in mounted.items() if "keys:/keys" in mounts] == ["keys"]


def test_it_holds_no_secret() -> None:
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"KEY|PASSWORD|SECRET|TOKEN", variable) and variable != "ROOT_ACCESS_KEY":
                assert value is None or value.startswith("/keys/"), f"{name} {variable}"
    assert not re.search(r"://[^\s/]*:[^\s/@]*@", TEXT), "a password in a URL"


def test_every_setting_reaches_the_containers_and_nothing_else_does() -> None:
    read = re.findall(r'env\.\w+\(\s*"([A-Z0-9_]+)"', (ROOT / "rtspsite/settings.py").read_text())
    read += re.findall(r'env\.str\("([A-Z_]+)"', (ROOT / "streams/management/commands/prepare.py").read_text())
    read += ["WEB_CONCURRENCY", "SERVE_STOP_WITHIN_S"]
    passed = set(SERVICES["web"]["environment"])
    assert set(read) - passed == KEPT
    assert passed - set(read) == {"PGPASSFILE", "S3_SECRET_ACCESS_KEY_FILE", "API_TOKEN_FILE"}
    assert SERVICES["supervise"]["environment"] == SERVICES["web"]["environment"]


def test_a_stop_has_the_time_that_it_needs() -> None:
    (stop_within_s,) = re.findall(r"SERVE_STOP_WITHIN_S:-(\d+)", (ROOT / "scripts/serve.sh").read_text())
    for name in ("web", "supervise"):
        assert int(SERVICES[name]["stop_grace_period"].rstrip("s")) > int(stop_within_s)


def test_the_store_that_it_offers_is_the_one_that_its_head_tells_to_use() -> None:
    told = dict(re.findall(r"^#   ([A-Z0-9_]+)=(\S+)$", TEXT, re.M))
    assert set(told["COMPOSE_PROFILES"].split(",")) == {"redis", "store"}
    assert told["REDIS_URL"] == "redis://redis:6379/0"
    assert told["S3_ENDPOINT_URL"] == "http://store:7070"
    store = {name: resolved(value, told) for name, value in SERVICES["store"]["environment"].items()}
    assert (store["BUCKET"], store["ROOT_ACCESS_KEY"]) == (told["S3_BUCKET"], told["S3_ACCESS_KEY_ID"])
    assert f"cat {told['S3_SECRET_ACCESS_KEY_FILE']}" in SERVICES["store"]["command"][0]


# --- the passwords --------------------------------------------------------------------------------


def test_passwords_are_made_once_and_read_by_those_who_need_them(tmp_path: Path) -> None:
    make_keys(tmp_path)
    files = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    make_keys(tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == files
    assert set(files) == {"database", "store", "pgpass"}
    assert all(re.fullmatch(rb"[0-9a-f]{48}", files[name]) for name in ("database", "store"))
    assert files["database"] != files["store"]
    assert files["pgpass"] == b"database:5432:capture:capture:" + files["database"] + b"\n"
    modes = {name: (tmp_path / name).stat().st_mode & 0o777 for name in files}
    assert modes == {"database": 0o640, "store": 0o640, "pgpass": 0o600}


def test_a_password_that_was_cut_off_is_made_again(tmp_path: Path) -> None:
    (tmp_path / "database").touch()
    make_keys(tmp_path)
    assert len((tmp_path / "database").read_bytes()) == 48


def make_keys(folder: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "KEYS_DIR": str(folder)}
    subprocess.run(["bash", ROOT / "scripts/keys.sh"], env=environment, check=True, timeout=60)


# --- as processes ---------------------------------------------------------------------------------


def resolved(value: str, variables: dict[str, str]) -> str:
    """As Compose does it: `${NAME:-default}` from the variables."""
    return re.sub(r"\$\{(\w+):-([^}]*)\}", lambda found: variables.get(found[1]) or found[2], value)


@dataclass
class Project(Calls):
    """`docker compose up` of our services below a folder. `dotenv` is what .env holds."""

    root: Path
    database: PostgreSQL
    dotenv: dict[str, str]
    port: int = field(default_factory=free_port)
    containers: "dict[str, Container]" = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def paths(self) -> dict[str, str]:
        """What stands for what, in the order in which it is replaced."""
        folders = {path: str(self.root / path[1:]) for path in ("/opt/exercise", "/app", "/data", "/keys")}
        return folders | {"database:5432": f"127.0.0.1:{self.database.port}"}

    def mapped(self, text: str) -> str:
        for old, new in self.paths.items():
            text = re.sub(rf"(?<![\w/]){old}", new, text)
        return text

    def run(self, service: str, name: str, **settings: str) -> "Container":
        container = Container(self, service, name, settings)
        container.start()
        self.containers[name] = container
        return container

    def make_passwords(self) -> None:
        (entry,) = [SERVICES["keys"]["entrypoint"]]
        environment = {"PATH": "/usr/bin:/bin", "KEYS_DIR": self.mapped("/keys")}
        subprocess.run([*AS_USER, *map(self.mapped, entry)], env=environment, check=True, timeout=60)
        passwords = self.root / "keys" / "pgpass"
        passwords.write_text(self.mapped(passwords.read_text()))

    def make_database(self) -> None:
        """As PostgreSQL's image does from its environment."""
        named = SERVICES["database"]["environment"]
        password = (self.root / self.mapped(named["POSTGRES_PASSWORD_FILE"])).read_text()
        user = sql.Identifier(named["POSTGRES_USER"])
        role = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(user, sql.Literal(password))
        self.database.execute(role)
        database = sql.Identifier(named["POSTGRES_DB"])
        self.database.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(database, user))


@dataclass
class Container:
    project: Project
    service: str
    name: str
    settings: dict[str, str] = field(default_factory=dict)
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def environment(self) -> dict[str, str]:
        dotenv, mapped = self.project.dotenv, self.project.mapped
        given = {
            name: dotenv.get(name) if value is None else resolved(value, dotenv)
            for name, value in SERVICES[self.service]["environment"].items()
        }
        return {
            **{name: mapped(value) for name, value in image_environment().items()},
            **{name: mapped(value) for name, value in given.items() if value is not None},
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "HOME": "/",
            "HOST": "127.0.0.1",
            "PORT": str(self.project.port),
            "CAPTURE_HOST_NAME": self.name,  # as if it were the name of a machine
            **self.settings,
        }

    @property
    def log(self) -> str:
        return (self.project.root / f"log-{self.name}").read_text()

    def start(self) -> None:
        entry = ["bash", self.project.mapped("/opt/exercise/serve.sh"), *SERVICES[self.service]["command"]]
        with (self.project.root / f"log-{self.name}").open("ab") as log:
            self.process = subprocess.Popen(
                [*AS_USER, *entry], cwd=self.project.root / "app", env=self.environment,
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip

    def wait_until_healthy(self) -> None:
        """Asked only once its log says that it began: the healthcheck of a supervisor is a Django to start."""
        began = {"web": "Booting worker", "supervise": " supervisor started "}[self.service]
        wait_for(lambda: began in self.log, f"the begin of {self.name}", 120)
        wait_for(self.is_healthy, f"health of {self.name}")

    def is_healthy(self) -> bool:
        _, *check = SERVICES[self.service]["healthcheck"]["test"]
        command = [*AS_USER, "env", *map(self.project.mapped, check)]
        return subprocess.run(command, env=self.environment, capture_output=True, timeout=60).returncode == 0

    def processes(self) -> list[psutil.Process]:
        assert self.process
        with suppress(psutil.NoSuchProcess):
            main = psutil.Process(self.process.pid)
            return [main, *main.children(recursive=True)]
        return []

    def kill(self) -> None:
        """All that is in it at one moment, as a container dies."""
        assert self.process
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.wait(60)

    def stop(self) -> int:
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def project(tmp_path: Path, own_postgresql: PostgreSQL, redis: Redis) -> Iterator[Project]:
    lay_image(tmp_path)
    (tmp_path / "keys").mkdir(mode=0o750)
    os.chown(tmp_path / "keys", UID, UID)
    dotenv = {"REDIS_URL": redis.new_database(), "CAPTURE_SLOTS": "2"}
    project = Project(tmp_path, own_postgresql, dotenv)
    try:
        yield project
    finally:
        for container in project.containers.values():
            container.kill()
            print(f"--- {container.name}\n{container.log}")
        for folder in [tmp_path / "app", *(tmp_path / "app").rglob("*")]:
            if folder.is_dir():
                folder.chmod(0o755)
        shutil.rmtree(tmp_path / "app")


def test_it_serves_scaled_to_who_has_the_password_and_a_killed_container_costs_no_capture(project: Project) -> None:
    project.make_passwords()
    project.make_database()
    stranger = knocking(project)
    web = project.run("web", "web-1")
    first, second = (project.run("supervise", name) for name in ("supervise-1", "supervise-2"))
    for container in (first, second, web):
        container.wait_until_healthy()
        assert_is_half(container)

    with ScriptedCamera(Scene(320, 240, DARKER, fps=10), live=True) as camera:
        capture = project.begin(camera.url)
        project.wait_for_samples(capture, 4)
        holder = first if first.name == host_of(project, capture) else second
        holder.kill()
        assert web.is_healthy(), "one supervisor is enough"
        third = project.run("supervise", "supervise-3")
        third.wait_until_healthy()
        wait_for(lambda: host_of(project, capture) not in ("", holder.name), "another host's claim")
        wait_for(lambda: camera.clients == 1, "the capture goes on")
        wait_for(lambda: not holder.is_healthy(), "that the killed one is seen")
        project.wait_for_samples(capture, 12)
        answer = project.end("demo", "text/html")
    assert answer.status_code == 200
    shown = marks(Page(answer.text).grid(), 9)
    assert shown == sorted(shown)
    assert shown[3] - shown[0] <= 4, "what was captured before the kill is there"
    assert_did_not_get_in(stranger)
    for container in project.containers.values():
        if container not in (holder, stranger):
            before = container.processes()
            assert container.stop() == 0, container.log
            assert not [process for process in before if is_running(process)]


def assert_is_half(container: Container) -> None:
    """A role runs its half of serve.sh alone."""
    lines = [" ".join(process.cmdline()) for process in container.processes()]
    found = {
        part for part in ("gunicorn", "manage.py supervise", "manage.py jobs") if any(part in line for line in lines)
    }
    assert found <= ({"gunicorn"} if container.service == "web" else {"manage.py supervise", "manage.py jobs"})
    assert found


def host_of(project: Project, capture: int) -> str:
    with psycopg.connect(project.database.url_of("capture")) as connection:
        query = "SELECT host_name FROM streams_capture WHERE id = %s AND claimed_by_id IS NOT NULL"
        row = connection.execute(query, [capture]).fetchone()
    return str(row[0]) if row else ""


def knocking(project: Project) -> Container:
    """A website with a wrong password: its preparation tries for a minute, while others are let in."""
    wrong = project.root / "wrong-pgpass"
    wrong.write_text(re.sub(r"[0-9a-f]{48}", "0" * 48, (project.root / "keys" / "pgpass").read_text()))
    wrong.chmod(0o600)
    os.chown(wrong, UID, UID)
    return project.run("web", "web-0", PGPASSFILE=str(wrong))


def assert_did_not_get_in(container: Container) -> None:
    assert container.process
    assert container.process.wait(120) == 1
    assert "password authentication failed" in container.log
    assert "Booting worker" not in container.log
