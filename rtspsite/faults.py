"""What Django's own pages and mails about a fault may tell: no password, whatever held it."""

import re
from collections.abc import Mapping
from pprint import pformat
from typing import Any

from django.http import HttpRequest
from django.utils.safestring import SafeString
from django.views.debug import ExceptionReporter, SafeExceptionReporterFilter

from streams.engine.masking import mask

MAX_SHOWN = 4096  # Django cuts off what is longer, too


class Filter(SafeExceptionReporterFilter):
    """Also with DEBUG, and by more names than Django's own: settings, headers, cookies, environment, variables."""

    hidden_settings = re.compile(
        "API|AUTH|TOKEN|KEY|SECRET|PASS|PWD|SIGNATURE|COOKIE|SESSION|CREDENTIAL|CAMERA|RTSP|DATABASE|REDIS|S3_|QUERY_STRING"
        "|USERNAME|^USR$|^USER$|^SIG$",
        re.IGNORECASE,
    )

    def get_post_parameters(self, request: HttpRequest | None) -> Mapping[str, Any]:  # type: ignore[override]
        """None of them: /start takes addresses, the sign-in passwords."""
        return dict.fromkeys(request.POST, self.cleansed_substitute) if request else {}

    def get_traceback_frame_variables(  # type: ignore[override]
        self, request: HttpRequest | None, frame: Any
    ) -> list[tuple[str, Any]]:
        return [(name, self._shown(name, value)) for name, value in frame.f_locals.items()]

    def _shown(self, name: str, value: Any) -> "_Shown":
        if self.hidden_settings.search(name):
            return _Shown(self.cleansed_substitute)
        try:
            return _Shown(mask(pformat(value))[:MAX_SHOWN])
        except Exception as error:  # a repr may fail in any way
            return _Shown(f"cannot be shown: {type(error).__name__}")


class Reporter(ExceptionReporter):
    """Masks the whole report once more: the fault's own words, the address that was asked for."""

    def get_traceback_html(self) -> SafeString:
        return SafeString(mask(super().get_traceback_html()))

    def get_traceback_text(self) -> SafeString:
        return SafeString(mask(super().get_traceback_text()))

    def get_traceback_data(self) -> dict[str, Any]:
        data = super().get_traceback_data()
        if self.request:
            data["request_GET_items"] = [
                (name, self.filter.cleanse_setting(name, value)) for name, value in self.request.GET.items()
            ]
        return data


class _Shown:
    """A text that is shown as it is."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text
