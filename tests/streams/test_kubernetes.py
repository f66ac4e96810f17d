"""deploy/kubernetes: what is not in Kubernetes' schemas, which lint looks at: it fits the image and the settings."""

import base64
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography.fernet import Fernet
from django.test import Client, override_settings

from tests import kubernetes
from tests.e2e.prepared import prepare_sqlite
from tests.streams.processes import ROOT, environment
from tests.streams.test_settings import variables_read

Object = dict[str, Any]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
MAKE_SECRETS = ROOT / "deploy/kubernetes/make-secrets.sh"
FOLDERS = {str(folder.relative_to(kubernetes.FOLDER)): kubernetes.compose(folder) for folder in kubernetes.folders()}
EXAMPLES = {name: objects for name, objects in FOLDERS.items() if name != "base"}
OURS = ("web", "supervise")
WORKLOADS = ("Deployment", "StatefulSet")
# Of PostgreSQL's image.
FOREIGN = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD", "PGDATA"}


def the(objects: list[Object], kind: str, name: str) -> Object:
    (found,) = [one for one in objects if one["kind"] == kind and one["metadata"]["name"] == name]
    return found


def workloads(objects: list[Object]) -> list[Object]:
    return [one for one in objects if one["kind"] in WORKLOADS]


def pod(name: str, objects: list[Object] | None = None) -> Object:
    (found,) = [one for one in workloads(objects or FOLDERS["base"]) if one["metadata"]["name"] == name]
    spec: Object = found["spec"]["template"]["spec"]
    return spec


def container(name: str, objects: list[Object] | None = None) -> Object:
    (found,) = pod(name, objects)["containers"]
    assert isinstance(found, dict)
    return found


def probes(container: Object) -> dict[str, Object]:
    return {name: value for name, value in container.items() if name.endswith("Probe")}


def of_the_image(name: str) -> str:
    (found,) = re.findall(rf"^\s*(?:ENV )?.*\b{name}=(\S+)", DOCKERFILE, re.M)
    return str(found)


# --- settings -------------------------------------------------------------------------------------


def test_each_variable_is_one_that_the_service_reads() -> None:
    read = set(variables_read())
    for name, objects in FOLDERS.items():
        for one in objects:
            if one["kind"] in ("ConfigMap", "Secret"):
                assert set(one["data"]) <= read | FOREIGN, name
        for one in kubernetes.containers(objects):
            foreign = FOREIGN if one["name"] == "postgresql" else set()
            assert {variable["name"] for variable in one.get("env", [])} <= (read | foreign), name


def test_every_setting_can_be_given_and_a_host_is_named_by_its_pod() -> None:
    for name in OURS:
        sources = [(next(iter(one)), next(iter(one.values()))["name"]) for one in container(name)["envFrom"]]
        assert sources == [("configMapRef", "captures"), ("secretRef", "captures")]
        assert pod(name)["enableServiceLinks"] is False
    (named,) = container("supervise")["env"]
    assert (named["name"], named["valueFrom"]["fieldRef"]["fieldPath"]) == ("CAPTURE_HOST_NAME", "metadata.name")
    assert "env" not in container("web")


def test_secrets_are_in_no_config_map_and_those_without_which_pods_differ_are_required() -> None:
    secret = {"SECRET_KEY", "CREDENTIALS_KEYS", "API_TOKEN", "DATABASE_URL", "S3_SECRET_ACCESS_KEY"}
    for name, objects in EXAMPLES.items():
        settings = the(objects, "ConfigMap", "captures")["data"]
        assert not secret & set(settings), name
        assert secret <= set(the(objects, "Secret", "captures")["data"]), name


def test_the_base_has_the_defaults_that_are_told() -> None:
    read = variables_read()
    for name, value in the(FOLDERS["base"], "ConfigMap", "captures")["data"].items():
        if name != "LOG_FORMAT":
            assert value == (f"{read[name]:g}" if isinstance(read[name], int | float) else read[name]), name


def test_pictures_are_shared_in_each_example() -> None:
    for name, objects in EXAMPLES.items():
        in_store = "S3_BUCKET" in the(objects, "ConfigMap", "captures")["data"]
        claims = [volume for role in OURS for volume in pod(role, objects)["volumes"] if volume["name"] == "media"]
        assert in_store or all("persistentVolumeClaim" in volume for volume in claims), name
    claim = the(EXAMPLES["examples/shared-volume"], "PersistentVolumeClaim", "media")
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


# --- the image ------------------------------------------------------------------------------------


def test_user_folders_command_and_port_are_the_images() -> None:
    (uid, gid) = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.M)[0]
    roles = re.findall(r"^    (\w+)(?::|\))[\w\[\]:]*\)? parts=", (ROOT / "scripts/serve.sh").read_text(), re.M)
    for name in OURS:
        security = pod(name)["securityContext"]
        assert (security["runAsUser"], security["runAsGroup"], security["fsGroup"]) == (int(uid), int(gid), int(gid))
        mounts = {mount["name"]: mount["mountPath"] for mount in container(name)["volumeMounts"]}
        assert mounts == {"data": of_the_image("DATA_DIR"), "media": of_the_image("MEDIA_ROOT"), "tmp": "/tmp"}
        assert {volume["name"] for volume in pod(name)["volumes"]} == set(mounts)
        assert container(name)["args"] == [name]
        assert name in roles
        assert "command" not in container(name)
    assert container("web")["ports"] == [{"name": "http", "containerPort": int(of_the_image("PORT"))}]


@pytest.mark.parametrize("name", FOLDERS)
def test_every_pod_is_confined(name: str) -> None:
    for one in workloads(FOLDERS[name]):
        spec = one["spec"]["template"]["spec"]
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for each in spec["containers"]:
            assert each["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert {"cpu", "memory"} <= set(each["resources"]["requests"])
            assert "memory" in each["resources"]["limits"]


# --- names ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOLDERS)
def test_selectors_ports_and_references_find_what_they_name(name: str) -> None:
    objects = FOLDERS[name]
    labels = {one["metadata"]["name"]: one["spec"]["template"]["metadata"]["labels"] for one in workloads(objects)}
    assert len({tuple(sorted(each.items())) for each in labels.values()}) == len(labels), "one selector, one workload"
    names = {(one["kind"], one["metadata"]["name"]) for one in objects}
    assert len(names) == len(objects)
    for one in objects:
        of, spec = one["metadata"]["name"], one.get("spec", {})
        assert one["metadata"].get("namespace") == (None if name == "base" else "captures")
        match one["kind"]:
            case "Deployment" | "StatefulSet":
                assert spec["selector"]["matchLabels"] == labels[of]
                assert one["kind"] == "Deployment" or ("Service", spec["serviceName"]) in names
                for each in spec["template"]["spec"]["containers"]:
                    given = {source["configMapRef"]["name"] for source in each.get("envFrom", ())[:1]}
                    assert {("ConfigMap", source) for source in given} <= names
                    ports = {port["name"] for port in each.get("ports", ())}
                    assert {
                        probe["httpGet"]["port"] for probe in probes(each).values() if "httpGet" in probe
                    } <= ports
            case "Service":
                assert spec["selector"] == labels[of]
                ports = {port["name"] for port in container(of, objects).get("ports", ())}
                assert {port["targetPort"] for port in spec.get("ports", ())} <= ports
            case "PodDisruptionBudget":
                assert spec["selector"]["matchLabels"] == labels[of]
            case "NetworkPolicy":
                assert spec["podSelector"]["matchLabels"] == labels[of]
                used = {port["port"] for rule in spec.get("ingress", ()) for port in rule["ports"]}
                assert used == {port["name"] for port in container(of, objects).get("ports", ())}
            case "Ingress":
                backend = spec["rules"][0]["http"]["paths"][0]["backend"]["service"]
                service = the(objects, "Service", backend["name"])
                assert backend["port"]["name"] in {port["name"] for port in service["spec"]["ports"]}
    for role in ("web", "supervise"):
        assert labels[role]["app.kubernetes.io/component"] == role
    assert not {"Secret"} & {kind for kind, _ in names} or name != "base"


def test_the_ingress_host_is_allowed_and_only_the_controller_may_be_believed() -> None:
    objects = EXAMPLES["examples/ingress"]
    settings = the(objects, "ConfigMap", "captures")["data"]
    assert the(objects, "Ingress", "web")["spec"]["rules"][0]["host"] in settings["ALLOWED_HOSTS"].split(",")
    assert settings["HTTPS"] == "1"
    (rule,) = the(objects, "NetworkPolicy", "web")["spec"]["ingress"]
    assert "namespaceSelector" in rule["from"][0]


# --- life -----------------------------------------------------------------------------------------


def test_a_pod_may_take_the_time_that_a_stop_takes() -> None:
    stop_s = int(the(FOLDERS["base"], "ConfigMap", "captures")["data"]["SERVE_STOP_WITHIN_S"])
    command, wait_s = container("web")["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert pod("web")["terminationGracePeriodSeconds"] >= int(wait_s) + stop_s + 5
    assert pod("supervise")["terminationGracePeriodSeconds"] >= stop_s + 5


@pytest.mark.django_db
@pytest.mark.parametrize("is_https", [False, True])
def test_the_websites_probes_are_answered_as_kubelet_asks_them(client: Client, is_https: bool) -> None:
    """By the pod's address, as a name that is not allowed; with a token, and behind HTTPS."""
    found = probes(container("web"))
    assert {name: probe["httpGet"]["path"] for name, probe in found.items()} == {
        "startupProbe": "/livez", "livenessProbe": "/livez", "readinessProbe": "/readyz"
    }  # fmt: skip
    with override_settings(
        SECURE_SSL_REDIRECT=is_https, API_TOKENS=["t" * 24], ALLOWED_HOSTS=["localhost", "a.example"]
    ):
        for probe in found.values():
            headers = {header["name"]: header["value"] for header in probe["httpGet"]["httpHeaders"]}
            path = probe["httpGet"]["path"]
            assert client.get(path, headers=headers).status_code == (200 if path == "/livez" else 503)
            assert client.get(path, headers={"Host": "10.1.2.3:8000"}).status_code == 400


def test_a_supervisors_probes_are_the_images_own_and_only_liveness_forgives_the_database() -> None:
    commands = {name: probe["exec"]["command"] for name, probe in probes(container("supervise")).items()}
    check = ["python3", "/opt/exercise/healthcheck", "supervise"]
    assert commands == {"startupProbe": check, "readinessProbe": check, "livenessProbe": [*check, "--live"]}
    assert "scripts/healthcheck" in DOCKERFILE


def check(folder: Path, *arguments: str, **variables: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/healthcheck", "supervise", *arguments],
        env=environment(folder, **variables), capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout


def test_a_hung_supervisor_is_told_from_a_database_that_is_away(tmp_path: Path) -> None:
    prepare_sqlite(tmp_path / "data" / "db.sqlite3")
    silent = (1, "host=north: no heartbeat for 15 s\n")
    assert [check(tmp_path), check(tmp_path, "--live")] == [silent, silent]
    away = "postgres://capture@127.0.0.1:1/capture"
    told = "host=north: the database is away: OperationalError\n"
    assert check(tmp_path, DATABASE_URL=away) == (1, told)
    assert check(tmp_path, "--live", DATABASE_URL=away) == (0, told)


# --- secrets, and kustomize itself ------------------------------------------------------------------


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of deploy/kubernetes with secrets made."""
    copied = tmp_path / "kubernetes"
    ignore = shutil.ignore_patterns("secrets.env", "postgresql.env")
    shutil.copytree(ROOT / "deploy/kubernetes", copied, ignore=ignore)
    for name in EXAMPLES:
        subprocess.run([copied / MAKE_SECRETS.name, copied / name], check=True, capture_output=True)
    return copied


def test_secrets_are_made_once_for_their_owner_alone_and_the_service_takes_them(checkout: Path) -> None:
    folder = checkout / "examples/postgresql-s3"
    made = kubernetes.variables(folder / "secrets.env")
    password = kubernetes.variables(folder / "postgresql.env")["POSTGRES_PASSWORD"]
    assert made["DATABASE_URL"] == f"postgres://capture:{password}@postgresql:5432/capture"
    assert len(password) == 48
    assert len(made["SECRET_KEY"]) >= 50
    Fernet(made["CREDENTIALS_KEYS"])
    assert len(made["API_TOKEN"]) >= 20
    for name in ("secrets.env", "postgresql.env"):
        assert (folder / name).stat().st_mode & 0o077 == 0
    before = (folder / "secrets.env").read_text()
    again = subprocess.run([checkout / MAKE_SECRETS.name, folder], check=True, capture_output=True, text=True)
    assert again.stderr.count("stays as it is") == 2
    assert (folder / "secrets.env").read_text() == before
    given = {name: value for name, value in made.items() if value}
    done = subprocess.run(
        [sys.executable, "-c", "import rtspsite.settings"], cwd=ROOT, env=environment(checkout, **given),
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    ignored = ["git", "-c", "safe.directory=*", "check-ignore", "deploy/kubernetes/examples/ingress/secrets.env"]
    assert subprocess.run(ignored, cwd=ROOT, capture_output=True, timeout=60).returncode == 0


@pytest.mark.skipif(
    not shutil.which("kubectl"), reason="no kubectl, and Debian's of 1.20 does not know what kustomization.yaml says"
)
@pytest.mark.parametrize("name", FOLDERS)
def test_what_is_composed_is_what_kustomize_makes_of_it(checkout: Path, name: str) -> None:
    """By kubectl, which needs no cluster for it. Where it is not installed, the summary of the tests says so."""
    ours = kubernetes.compose(checkout / name)
    done = subprocess.run(
        ["kubectl", "kustomize", checkout / name], capture_output=True, text=True, timeout=60,
        env={"PATH": os.environ["PATH"], "HOME": str(checkout)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    # The names of generated objects end in a hash of their content.
    said = re.sub(r"\b(captures|postgresql)-[a-z0-9]{10}$", r"\1", done.stdout, flags=re.M)
    theirs = list(yaml.safe_load_all(said))
    for one in theirs:
        if one["kind"] == "Secret":  # long values are broken into lines
            one["data"] = {key: value.replace("\n", "") for key, value in one["data"].items()}
    assert by_name(theirs) == by_name(ours), name


@pytest.mark.parametrize("name", FOLDERS)
def test_each_folder_has_website_and_supervisors(checkout: Path, name: str) -> None:
    kinds = {one["kind"] for one in kubernetes.compose(checkout / name)}
    assert kinds >= {"Deployment", "StatefulSet", "Service", "ConfigMap"}


def by_name(objects: list[Object]) -> dict[tuple[str, str], Object]:
    return {(one["kind"], one["metadata"]["name"]): one for one in objects}


def test_what_the_composer_does_not_know_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kustomization.yaml").write_text("resources: []\ncomponents: [x]\n")
    with pytest.raises(kubernetes.Wrong, match="components"):
        kubernetes.compose(tmp_path)
    (tmp_path / "kustomization.yaml").write_text(
        "patches:\n- target: {kind: Deployment, name: nowhere}\n  patch: '[]'\n"
    )
    with pytest.raises(kubernetes.Wrong, match="nowhere"):
        kubernetes.compose(tmp_path)


def test_the_schemas_find_a_wrong_name_and_a_wrong_type() -> None:
    objects = kubernetes.compose(kubernetes.FOLDER / "base")
    the(objects, "Deployment", "web")["spec"]["replica"] = 2
    container("supervise", objects)["readinessProbe"]["periodSeconds"] = "30"
    found = kubernetes.complaints(objects)
    assert len(found) == 2 * len(kubernetes.VERSIONS)
    assert "Deployment web, spec:" in found[0]
    assert "'replica' was unexpected" in found[0]
    assert any("StatefulSet supervise" in words and "periodSeconds" in words for words in found)


def test_the_docs_name_what_is_there() -> None:
    text = (ROOT / "docs/operations.md").read_text().partition("\n## Kubernetes\n")[2].partition("\n## ")[0]
    commands = re.findall(r"^    (.+)$", text, re.M)
    assert len(commands) == 5
    for path in re.findall(r"deploy/kubernetes[\w./-]*", text):
        assert (ROOT / path).exists(), path
    assert {name.removeprefix("examples/") for name in EXAMPLES} <= set(re.findall(r"`([\w-]+)`", text))
    namespace, *_ = {one["metadata"]["namespace"] for objects in EXAMPLES.values() for one in objects}
    assert f"kubectl create namespace {namespace}" in commands
    image = {one["image"] for one in kubernetes.containers(EXAMPLES["examples/ingress"]) if one["name"] in OURS}
    assert image == {f"{re.findall('-t (.+?) ', commands[0])[0]}:latest"}
    assert "service/web 8000:80" in commands[-1]
    assert the(FOLDERS["base"], "Service", "web")["spec"]["ports"][0]["port"] == 80
    assert f"Kubernetes {' and '.join(version.removesuffix('.0') for version in kubernetes.VERSIONS)}" in text


def test_values_of_secrets_are_encoded_as_the_api_has_them() -> None:
    data = the(EXAMPLES["examples/shared-volume"], "Secret", "captures")["data"]
    assert all(base64.b64decode(value).decode() == "" for value in data.values())
