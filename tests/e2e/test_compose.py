"""What compose.yaml says, read; `make test-image` runs its services."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.service import ROOT
from tests.image.compose import (
    AROUND,
    COMPOSE,
    LEFT_OUT,
    NOT_STARTED,
    OPTIONS,
    OTHERWISE,
    SERVICES,
    keys_of,
    resolved,
)

TEXT = (ROOT / "compose.yaml").read_text()
OURS = [name for name, service in SERVICES.items() if service["image"] == "exercise"]
# What settings.py and serve.sh read, and compose.yaml leaves as the image or the container has it.
KEPT = {"DATA_DIR", "MEDIA_ROOT", "HOST", "PORT", "CAPTURE_HOST_NAME", "DEBUG"}


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


def test_make_test_image_translates_each_key_or_knows_that_it_does_not() -> None:
    """A key that is new in compose.yaml fails here until tests/image/compose.py says what becomes of it."""
    started = {name for name, service in SERVICES.items() if "profiles" not in service}
    assert started == {"keys", "database", "web", "supervise"}
    assert {name: service["image"] for name, service in SERVICES.items() if name not in started} == NOT_STARTED
    assert {key for service in SERVICES.values() for key in keys_of(service)} == {*OPTIONS, *OTHERWISE, *LEFT_OUT}
    assert not {*OPTIONS, *OTHERWISE} & set(LEFT_OUT)
    around = {key: value for key, value in COMPOSE.items() if key != "services" and not key.startswith("x-")}
    assert set(keys_of(around)) == AROUND


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
