# syntax=docker/dockerfile:1@sha256:87999aa3d42bdc6bea60565083ee17e86d1f3339802f543c0d03998580f9cb89
# Three images: `gateway` (small, no torch), `pipelines` (every job), `model` (files only, mounted beside vLLM).
# actions/image builds them; python -m scripts.image --help says how by hand.

FROM python:3.11-slim@sha256:db3ff2e1800a8581e2c48a27c3995339d47bdf046da21c7627accd3d51053a93 AS interpreter
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/opt/venv/bin:$PATH

# pip installs uv, uv installs the rest, both by hash, as everywhere.
FROM interpreter AS installer
RUN --mount=type=bind,source=locks/uv.txt,target=/build/uv.txt --mount=type=cache,target=/root/.cache/pip \
  python3 -m venv /opt/installer \
  && /opt/installer/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r /build/uv.txt \
  && python3 -m venv --without-pip /opt/venv

FROM installer AS gateway-environment
RUN --mount=type=bind,source=locks/gateway.txt,target=/build/gateway.txt --mount=type=bind,source=locks/embedding.txt,target=/build/embedding.txt \
  --mount=type=cache,target=/root/.cache/uv \
  export VIRTUAL_ENV=/opt/venv \
  && /opt/installer/bin/uv pip install --quiet --require-hashes --link-mode copy --compile-bytecode -r /build/gateway.txt \
  && /opt/installer/bin/uv pip install --quiet --require-hashes --link-mode copy --no-deps -r /build/embedding.txt

FROM interpreter AS gateway
COPY --from=gateway-environment /opt/venv /opt/venv
COPY scripts/__init__.py scripts/cost.py scripts/serve.py /srv/gatehouse/scripts/
COPY pipelines/__init__.py /srv/gatehouse/pipelines/
COPY pipelines/core /srv/gatehouse/pipelines/core
COPY pipelines/llm /srv/gatehouse/pipelines/llm
COPY pipelines/release /srv/gatehouse/pipelines/release
COPY pipelines/serving /srv/gatehouse/pipelines/serving
COPY pyproject.toml /srv/gatehouse/
WORKDIR /srv/gatehouse
USER 10001:10001
EXPOSE 8080 9090
ENTRYPOINT ["python3", "-m", "scripts.serve"]

FROM installer AS pipelines-environment
ARG LOCK=cuda
RUN --mount=type=bind,source=locks,target=/build/locks --mount=type=cache,target=/root/.cache/uv \
  VIRTUAL_ENV=/opt/venv /opt/installer/bin/uv pip install --quiet --require-hashes --link-mode copy --compile-bytecode -r "/build/locks/${LOCK}.txt"

# A job runs in a checkout of the product, mounted at /workspace; the code is this image's, never the checkout's.
FROM interpreter AS pipelines
# No version of git: the base image, pinned by digest, says which Debian it is, and within one git changes for security only.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install --yes --no-install-recommends git \
  && rm -rf /var/lib/apt/lists/*
COPY --from=pipelines-environment /opt/venv /opt/venv
COPY scripts /opt/gatehouse/scripts
COPY pipelines /opt/gatehouse/pipelines
ENV PYTHONPATH=/opt/gatehouse PYTHONSAFEPATH=1 HOME=/tmp
WORKDIR /workspace
USER 10001:10001
ENTRYPOINT ["python3"]

FROM scratch AS model
ARG MODEL
COPY models/${MODEL} /
