"""Notices that the previous release does not know."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("streams", "0006_stream_quirks")]

    operations = [
        migrations.AddField(
            "stream",
            "newer_notices",
            models.CharField(
                blank=True,
                default="",
                db_default="",
                editable=False,
                help_text="Notices that the previous release does not know: its pages would fail on them.",
                max_length=100,
            ),
        ),
    ]
