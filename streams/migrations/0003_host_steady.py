"""Hosts say since when their heartbeats are steady, and up to when all is saved."""

from django.db import migrations, models
from django.utils import timezone


class Migration(migrations.Migration):
    dependencies = [("streams", "0002_engine_counts")]

    operations = [
        migrations.AddField("host", "instance", models.CharField(default="", editable=False, max_length=32)),
        migrations.AddField("host", "steady_at", models.DateTimeField(default=timezone.now), preserve_default=False),
        migrations.AddField("host", "saved_at", models.DateTimeField(default=timezone.now), preserve_default=False),
    ]
