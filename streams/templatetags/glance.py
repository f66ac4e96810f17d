"""What an operator wants to see first in the admin: streams by status, hosts, jobs."""

from typing import Any

from django import template
from django_q.models import Schedule

from .. import metrics

register = template.Library()


@register.inclusion_tag("admin/_glance.html", takes_context=True)
def glance(context: dict[str, Any]) -> dict[str, Any]:
    """From the counts that Prometheus gets: eight queries, however much there is."""
    found = metrics.read()
    alive = [host for host in found.hosts if host.is_alive]
    return {
        "perms": context["perms"],
        "streams": [(status, count) for status, count in found.streams.items() if count],
        "hosts": found.hosts,
        "alive": len(alive),
        "slots": sum(host.slots for host in alive),
        "slots_used": sum(host.slots_used for host in alive),
        "waiting_jobs": found.waiting_jobs,
        "failed_jobs": sum(found.failed_jobs.values()),
        "schedules": Schedule.objects.filter(next_run__isnull=False).exclude(repeats=0).order_by("next_run"),
    }
