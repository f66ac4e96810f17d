"""The addresses of the service."""

from django.urls import path

from . import images, pages, views

urlpatterns = [
    path("", pages.index, name="index"),
    path("start", views.start, name="start"),
    path("stop", views.stop, name="stop"),
    path("streams/", pages.streams, name="streams"),
    path("streams/<str:name>/", pages.stream, name="stream"),
    path("streams/<str:name>/best.jpg", images.best_image, name="best"),
    path("streams/<str:name>/start", pages.start, name="stream_start"),
    path("streams/<str:name>/stop", pages.stop, name="stream_stop"),
    path("captures/<int:capture_id>/", pages.capture, name="capture"),
    path("captures/<int:capture_id>/grid.jpg", images.grid_image, name="grid"),
    path("captures/<int:capture_id>/small.jpg", images.grid_small, name="grid_small"),
    path("captures/<int:capture_id>/capture.zip", images.capture_zip, name="capture_zip"),
    path("frames/<int:frame_id>.jpg", images.frame_image, name="frame"),
    path("frames/<int:frame_id>/small.jpg", images.frame_small, name="frame_small"),
    path("links", pages.link, name="link"),
    path("sign-out", pages.sign_out, name="sign_out"),
    path("favicon.ico", pages.icon),
    path("livez", views.livez, name="livez"),
    path("readyz", views.readyz, name="readyz"),
    path("metrics", views.metrics_page, name="metrics"),
]
