"""The service's addresses and the admin's."""

from django.contrib import admin
from django.urls import include, path

admin.site.site_header = admin.site.site_title = "Stream captures"
admin.site.index_title = "History"

handler400 = "streams.pages.bad_request"
handler403 = "streams.pages.forbidden"
handler404 = "streams.pages.not_found"
handler500 = "streams.api.errors.server_error"

urlpatterns = [
    path("admin/", admin.site.urls),
    path("api/", include("streams.api.urls")),
    path("", include("streams.urls")),
]
