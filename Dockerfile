# syntax=docker/dockerfile:1
# The service with the Postgres it can run by itself. Pin both FROM lines to a digest where builds must repeat exactly.

FROM python:3.13-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /src
COPY requirements.lock requirements-dev.lock ./
RUN python -m venv /opt/authstore \
    && /opt/authstore/bin/pip install --require-hashes --only-binary :all: -r requirements.lock
# The build backend with the development lock's pins and hashes, in a folder of its own that stays out of the image.
RUN awk '/^[a-z]/ {kept = /^(hatchling|packaging|pathspec|pluggy|tomlkit|trove-classifiers)==/} kept' requirements-dev.lock \
    > backend.lock \
    && python -m venv /opt/build \
    && /opt/build/bin/pip install --require-hashes --only-binary :all: -r backend.lock
COPY pyproject.toml README.md LICENSE ./
COPY protocol protocol
COPY service service
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir /wheel . \
    && /opt/authstore/bin/pip install --no-deps --no-index /wheel/*.whl \
    && /opt/authstore/bin/pip uninstall --yes pip

FROM python:3.13-slim
# An init of our own, so that orphans of the embedded Postgres are reaped on every platform, also where the runtime
# offers none (Kubernetes). Its version is the distribution's.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends tini && rm -rf /var/lib/apt/lists/*
# Postgres and its peer authentication go by the user's name: the number alone, without a line in passwd, is refused.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /data --shell /usr/sbin/nologin authstore \
    && install --directory --owner=10001 --group=10001 --mode=0700 /data
COPY --from=build /opt/authstore /opt/authstore
ENV PATH=/opt/authstore/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    AUTHSTORE_DATA_DIR=/data \
    AUTHSTORE_HOST=0.0.0.0
USER 10001:10001
WORKDIR /data
VOLUME /data
EXPOSE 8480
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=10s --start-period=60s --retries=3 CMD ["authstore", "health"]
ENTRYPOINT ["tini", "--", "authstore"]
CMD ["serve"]
