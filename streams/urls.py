"""The addresses of the service."""

from django.urls import path

from . import views

urlpatterns = [
    path("", views.index, name="index"),
    path("start", views.start, name="start"),
    path("stop", views.stop, name="stop"),
    path("captures/<int:capture_id>/", views.capture_page, name="capture"),
    path("captures/<int:capture_id>/grid.jpg", views.grid_image, name="grid"),
    path("frames/<int:frame_id>.jpg", views.frame_image, name="frame"),
    path("livez", views.livez, name="livez"),
    path("readyz", views.readyz, name="readyz"),
    path("metrics", views.metrics_page, name="metrics"),
]
