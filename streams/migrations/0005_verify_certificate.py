"""Whether the certificate of a camera by rtsps is verified."""

from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("streams", "0004_timeline")]

    operations = [
        migrations.AddField(
            "stream",
            "verify_certificate",
            models.BooleanField(
                default=True,
                db_default=True,
                help_text="Of a camera by rtsps. Without it whoever is in between can read the password.",
                verbose_name="verify the certificate",
            ),
        ),
    ]
