"""The service's addresses and the admin's."""

from django.contrib import admin
from django.urls import include, path

admin.site.site_header = admin.site.site_title = "Stream captures"
admin.site.index_title = "History"

urlpatterns = [
    path("admin/", admin.site.urls),
    path("", include("streams.urls")),
]
