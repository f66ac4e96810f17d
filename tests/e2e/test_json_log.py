"""LOG_FORMAT=json, whole: each line that serve.sh and its processes write is one object."""

import json
import os
import signal
import sys
from pathlib import Path

from tests.camera.clip import Scene
from tests.camera.server import ScriptedCamera
from tests.e2e.prepared import prepare_sqlite
from tests.e2e.service import ROOT, Service, free_port, wait_for

SECRET = "s3cret-Lamp-0f-this"


def test_each_line_of_the_service_is_one_object(tmp_path: Path) -> None:
    """With a capture, a camera that is away, a supervisor that is killed, and a stop."""
    prepare_sqlite(tmp_path / "data" / "db.sqlite3")
    command = ("bash", str(ROOT / "scripts/serve.sh"))
    service = Service(tmp_path, (command,), {"PYTHON": sys.executable, "LOG_FORMAT": "json"})

    def events(**wanted: object) -> list[dict[str, object]]:
        lines = [json.loads(line) for line in service.log.splitlines()]
        assert all(isinstance(line, dict) and line.keys() >= {"time", "level", "event"} for line in lines)
        return [line for line in lines if line.items() >= wanted.items()]

    scene = Scene(320, 240, plan=(40, 200, 90))
    with ScriptedCamera(scene, username="admin", password=SECRET) as camera, service:
        capture = service.begin(camera.url_with_credentials, interval=0.2, count=3, name="demo")
        away = service.begin(f"rtsp://admin:{SECRET}@127.0.0.1:{free_port()}/away")
        service.wait_for_samples(capture, 3)
        wait_for(lambda: events(event="reconnecting", capture=away, error="unreachable"), "the one that is away")
        (first,) = service.supervisors()
        os.kill(first, signal.SIGKILL)
        wait_for(lambda: len(events(event="supervisor started")) == 2, "another supervisor")
        assert service.end("demo").status_code == 200
        assert service.stop() == [0]
    assert SECRET not in service.log
    assert events(event="queued", stream="demo", capture=capture, interval_s=0.2)
    assert events(event="finished", stream="demo", capture=capture, ending="stopped")
    assert [line["level"] for line in events(logger="serve")] == ["INFO", "WARNING"]
    assert events(logger="gunicorn.error", event="Shutting down: Master")
    assert events(event="supervisor left")
