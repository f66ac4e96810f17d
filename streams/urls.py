"""The addresses of the service."""

from django.urls import path, register_converter
from django.urls.converters import StringConverter

from . import images, pages, views


class Name(StringConverter):
    """Without NUL, which PostgreSQL takes in no text."""

    regex = r"[^/\x00]+"


register_converter(Name, "name")

urlpatterns = [
    path("", pages.index, name="index"),
    path("start", views.start, name="start"),
    path("stop", views.stop, name="stop"),
    path("streams/", pages.streams, name="streams"),
    path("streams/<name:name>/", pages.stream, name="stream"),
    path("streams/<name:name>/start", pages.start, name="stream_start"),
    path("streams/<name:name>/stop", pages.stop, name="stream_stop"),
    path("captures/<int:capture_id>/", pages.capture, name="capture"),
    path("captures/<int:capture_id>/grid.jpg", images.grid_image, name="grid"),
    path("captures/<int:capture_id>/small.jpg", images.grid_small, name="grid_small"),
    path("captures/<int:capture_id>/capture.zip", images.capture_zip, name="capture_zip"),
    path("frames/<int:frame_id>.jpg", images.frame_image, name="frame"),
    path("frames/<int:frame_id>/small.jpg", images.frame_small, name="frame_small"),
    path("favicon.ico", pages.icon),
    path("livez", views.livez, name="livez"),
    path("readyz", views.readyz, name="readyz"),
    path("metrics", views.metrics_page, name="metrics"),
]
