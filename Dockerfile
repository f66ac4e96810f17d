# One image for every role: both halves in one container by default, or `web`, `supervise`, any command of manage.py.
# The steps are scripts, so that a test can take them without Docker.
#   docker build -t exercise . && docker run -p 8000:8000 -v exercise-data:/data exercise
FROM python:3.13-slim

# Nothing is installed below /app: a checkout may be mounted over it (-v "$PWD":/app).
COPY requirements.txt requirements-s3.txt scripts/image-install.sh /opt/exercise/
RUN PIP_NO_CACHE_DIR=1 bash /opt/exercise/image-install.sh /opt/exercise/requirements.txt /opt/exercise/requirements-s3.txt

COPY scripts/serve.sh scripts/json_lines.py scripts/healthcheck scripts/keys.sh /opt/exercise/
COPY . /app

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    APP_DIR=/app \
    DATA_DIR=/data \
    MEDIA_ROOT=/data/media \
    HOST=0.0.0.0 \
    PORT=8000

WORKDIR /app
USER 10001:10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 CMD ["python3", "/opt/exercise/healthcheck"]
ENTRYPOINT ["bash", "/opt/exercise/serve.sh"]
