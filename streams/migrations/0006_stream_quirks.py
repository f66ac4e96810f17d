"""What was learned about a stream's camera: streams.engine.quirks."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("streams", "0005_verify_certificate")]

    operations = [
        migrations.AddField(
            "stream",
            "quirks",
            models.TextField(
                blank=True,
                default="",
                db_default="",
                editable=False,
                help_text="What was learned about the camera, as JSON. Forgotten when its address changes.",
                verbose_name="learned",
            ),
        ),
    ]
