"""The service's version for the footer of a page, one that is rendered without a request too."""

from django import template

from rtspsite import __version__

register = template.Library()


@register.simple_tag
def version() -> str:
    return __version__
