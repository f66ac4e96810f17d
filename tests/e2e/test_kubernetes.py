"""The pods of deploy/kubernetes as processes: what the manifests hand on, the probes as the kubelet asks, the stop.

There is no cluster here: no kubelet, no network policy and no volume is tried.
"""

import base64
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests

from tests import kubernetes
from tests.camera.clip import Scene
from tests.camera.server import ScriptedCamera
from tests.e2e.service import ROOT, Calls, free_port, wait_for
from tests.e2e.site import KEYS
from tests.servers import PostgreSQL

OBJECTS = kubernetes.compose(kubernetes.FOLDER / "examples/shared-volume")
WORKLOADS = ("Deployment", "StatefulSet")
TOKEN = "t" * 24


def of_kind(kind: str) -> dict[str, str]:
    found = next(one for one in OBJECTS if one["kind"] == kind and one["metadata"]["name"] == "captures")
    return dict(found["data"])


@dataclass
class Pod(Calls):
    """One container of a workload, with an empty /data of its own and the volume `media` of all."""

    role: str
    name: str
    folder: Path
    media: Path
    secret: dict[str, str]
    port: int = field(default_factory=free_port)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def container(self) -> dict[str, Any]:
        return next(one for one in kubernetes.containers(OBJECTS) if one["name"] == self.role)

    @property
    def environment(self) -> dict[str, str]:
        """The image's with paths mapped, then envFrom, then env."""
        given = {"configMapRef": of_kind("ConfigMap"), "secretRef": self.secret}
        found = {
            "PATH": os.environ["PATH"], "PYTHON": sys.executable, "APP_DIR": str(ROOT), "HOST": "127.0.0.1",
            "PORT": str(self.port), "DATA_DIR": str(self.folder), "MEDIA_ROOT": str(self.media),
        }  # fmt: skip
        for source in self.container["envFrom"]:
            found |= given[next(iter(source))]
        for variable in self.container.get("env", ()):
            assert variable["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
            found[variable["name"]] = self.name
        return found

    def start(self) -> None:
        self.folder.mkdir()
        command = ["bash", str(ROOT / "scripts/serve.sh"), *self.container["args"]]
        with (self.folder / "log").open("wb") as log:
            self.process = subprocess.Popen(
                command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def passes(self, name: str) -> bool:
        """Whether the probe of this name does now."""
        assert self.process
        assert self.process.poll() is None, self.log
        probe = self.container[name]
        if exec_ := probe.get("exec"):
            command = [sys.executable, str(ROOT / "scripts/healthcheck"), *exec_["command"][2:]]
            done = subprocess.run(command, env=self.environment, capture_output=True, timeout=probe["timeoutSeconds"])
            return done.returncode == 0
        get = probe["httpGet"]
        headers = {header["name"]: header["value"] for header in get["httpHeaders"]}
        try:
            return (
                requests.get(self.url + get["path"], headers=headers, timeout=probe["timeoutSeconds"]).status_code
                == 200
            )
        except requests.ConnectionError:
            return False

    def post(self, path: str, accept: str = "*/*", **fields: Any) -> requests.Response:
        headers = {"Accept": accept, "Authorization": f"Bearer {TOKEN}"}
        return requests.post(self.url + path, data=fields, headers=headers, timeout=60)

    def stop(self) -> int:
        """As the kubelet does, after the preStop hook."""
        assert self.process
        self.process.send_signal(signal.SIGTERM)
        spec = next(
            one for one in OBJECTS if one["metadata"]["name"] == self.role and "template" in one.get("spec", {})
        )
        return self.process.wait(spec["spec"]["template"]["spec"]["terminationGracePeriodSeconds"])

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")


def test_the_pods_capture_pass_their_probes_and_stop_in_time(tmp_path: Path) -> None:
    media = tmp_path / "media"
    scene = Scene(320, 240, plan=(40, 200, 90))
    with PostgreSQL() as database, ScriptedCamera(scene) as camera:
        secret = {name: base64.b64decode(value).decode() for name, value in of_kind("Secret").items()}
        secret |= {**KEYS, "API_TOKEN": TOKEN, "DATABASE_URL": database.url}
        web = Pod("web", "web-a", tmp_path / "web-a", media, secret)
        host = Pod("supervise", "supervise-0", tmp_path / "supervise-0", media, secret)
        try:
            for pod in (web, host):
                pod.start()
            for pod, probe in ((web, "startupProbe"), (host, "readinessProbe"), (web, "readinessProbe")):
                wait_for(lambda pod=pod, probe=probe: pod.passes(probe), f"{probe} of {pod.name}")  # type: ignore[misc]
            assert host.passes("livenessProbe")
            web.begin(camera.url, name="demo", interval=0.2, count=3)
            wait_for(lambda: len(list(media.rglob("*.jpg"))) >= 3, "three pictures in the volume that all share")
            grid = web.end("demo", "application/json")
            assert (grid.status_code, grid.json()["code"]) == (200, "complete")
            assert '"host": "supervise-0"' in host.log
            assert [web.stop(), host.stop()] == [0, 0], web.log + host.log
            assert not list(tmp_path.glob("*/*key*")), "no pod made keys of its own"
        finally:
            for pod in (web, host):
                if pod.process and pod.process.poll() is None:
                    pod.process.kill()  # the rest sees it, and ends
