"""The whole API against what its OpenAPI document says: any input, no 500, no answer that is not documented.

API_EXAMPLES=500 makes it a long run.
"""

import os
from collections import Counter

import pytest
from django.core.wsgi import get_wsgi_application
from hypothesis import strategies as st
from pytest_django import Settings

from streams import outcomes, services
from streams.models import Capture
from tests.streams.builders import (
    URL_WITH_SECRET,
    make_capture,
    make_claim,
    make_finished,
    make_host,
    make_picture,
    make_report,
    make_wish,
)

EXAMPLES = int(os.environ.get("API_EXAMPLES", "6"))
CONFIG = {
    "seed": 5,
    "generation": {"max-examples": EXAMPLES, "deterministic": True, "database": "none"},
    "phases": {"stateful": {"generation": {"max-examples": max(1, EXAMPLES // 6)}}},
    "operations": [
        # 404 also if it was never captured, as /stop has it: the stream itself is there.
        {
            "include-name": "POST /api/streams/{name}/stop",
            "checks": {"ensure_resource_availability": {"enabled": False}},
        }
    ],
    "dictionaries": {
        "ids": {"values": [1, 2, 3, 4, 5, 6]},
        "names": {"values": ["idle", "demo", "done", "few", "lost", "ending", "waiting"]},
    },
    "parameters": {
        "path.capture_id": {"dictionary": "ids", "probability": 0.7},
        "path.name": {"dictionary": "names", "probability": 0.7},
    },
}
CAMERAS = st.sampled_from(
    [
        "rtsp://camera.example:8554/demo",
        "rtsps://other.example/live?channel=1&token=pass%40word",  # user and password come apart
        "RTSP://10.1.2.3/Streaming/Channels/101",
        "rtsp://[2001:db8::1]:554/",
        "rtsp://camera.example/user=admin_password=x_channel=1",
    ]
)
PICTURES = st.sampled_from(
    ["/streams/demo/best.jpg", "/captures/2/grid.jpg", "http://localhost/captures/9/small.jpg", "/frames/1.jpg"]
)


def streams_in_every_state() -> None:
    """What is not said here, the calls make: idle, stopping."""
    make_host(slots=2)
    services.create_stream(make_wish("rtsp://idle.example/idle"))
    capture = make_capture(URL_WITH_SECRET)
    services.checkpoint(make_claim(capture), services.Totals(), make_report(make_picture(1), make_picture(2)))
    make_finished("rtsp://done.example/done")
    make_finished("rtsp://few.example/few", frames=2)
    services.fail(make_claim(make_capture("rtsp://lost.example/lost")), "address_refused", "Not there.")
    services.stop(make_capture("rtsp://ending.example/ending").stream)
    make_capture("rtsp://waiting.example/waiting")


@pytest.mark.timeout(900 if EXAMPLES > 50 else 180)
@pytest.mark.django_db(transaction=True)
def test_whatever_comes_in_is_answered_as_documented(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    import schemathesis  # takes half a second, which only this test has to pay
    from schemathesis.config import SchemathesisConfig
    from schemathesis.engine import events, from_schema

    settings.ALLOWED_HOSTS = ["localhost"]
    monkeypatch.setattr(outcomes, "STOP_WAIT_S", 0.0)
    streams_in_every_state()
    schemathesis.openapi.format("rtsp-url", CAMERAS)
    schemathesis.openapi.format("picture-path", PICTURES)
    schema = schemathesis.openapi.from_wsgi(
        "/api/openapi.json", get_wsgi_application(), config=SchemathesisConfig.from_dict(CONFIG)
    )
    statuses: Counter[int] = Counter()
    faults: list[str] = []
    for event in from_schema(schema).execute():
        if isinstance(event, events.ScenarioFinished):
            for interaction in event.recorder.interactions.values():
                if interaction.response is not None:
                    statuses[interaction.response.status_code] += 1
            for checks in event.recorder.checks.values():
                for check in checks:
                    if check.failure_info is not None:
                        faults.append(f"{check.name}: {check.failure_info.failure}\n{check.failure_info.code_sample}")
        elif isinstance(event, events.NonFatalError | events.FatalError):
            faults.append(str(event))
    print(statuses)
    assert not faults, "\n\n".join(faults)
    assert {200, 201, 204, 400, 404, 405, 409} <= statuses.keys()
    assert Capture.objects.exists()
