"""What is known of a capture, its frames and its timeline, as plain data: the same in the API and in the zip."""

from datetime import UTC, datetime
from typing import Any

from .engine.timeline import Bucket, Timeline
from .models import Capture, Frame


def problem(code: str, words: str) -> dict[str, str] | None:
    return {"code": code, "message": words} if code else None


def of_capture(capture: Capture) -> dict[str, Any]:
    return {
        "id": capture.pk,
        "stream": capture.stream.name,
        "interval": capture.interval_s,
        "count": capture.count,
        "transport": capture.transport,
        "started_at": capture.started_at,
        "stop_requested_at": capture.stop_requested_at,
        "finished_at": capture.finished_at,
        "ending": capture.ending or None,
        "error": problem(capture.error_code, capture.error_text),
        "host": capture.host_name or None,
        "samples": capture.samples,
        "missed": capture.missed,
        "rejected": capture.rejected,
        "repeated": capture.repeated,
        "connections": capture.connections,
        "last_sample_at": capture.last_sample_at,
        "late_p50_s": capture.late_p50_s,
        "late_p95_s": capture.late_p95_s,
    }


def of_frame(rank: int, frame: Frame) -> dict[str, Any]:
    return {
        "rank": rank,
        "number": frame.number,
        "score": round(frame.score, 3),
        "captured_at": frame.captured_at,
        "width": frame.width,
        "height": frame.height,
    }


def of_timeline(timeline: Timeline | None) -> dict[str, Any] | None:
    if timeline is None:
        return None
    return {
        "began_at": _moment(timeline.began_at),
        "width_s": timeline.width_s,
        "buckets": [_bucket(at, bucket) for at, bucket in timeline],
    }


def _bucket(at: float, bucket: Bucket) -> dict[str, Any]:
    """`at` is its middle."""
    return {
        "at": _moment(at),
        "samples": bucket.samples,
        "low": bucket.low if bucket.samples else None,
        "high": bucket.high if bucket.samples else None,
        "connections": bucket.connections,
        "error": bucket.error_code or None,
    }


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
