# Two images from one file: `docker build --target cpu .` (the default) and `docker build --target gpu .`.
# The base is pinned by tag here; a release pipeline pins it by digest.
# The CUDA and cuDNN libraries of `gpu` are wheels of requirements/gpu.lock, so both share their base.
# `make image-check` replays this file where no engine runs; what it does not know it refuses.

FROM python:3.11-slim-bookworm AS base

# Bytecode that is checked neither against a time nor against its source holds nothing of the day of the build, and
# stays valid where an engine rewrites the times of files.
FROM base AS builder
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never \
    PYC_INVALIDATION_MODE=UNCHECKED_HASH \
    VIRTUAL_ENV=/opt/venv
WORKDIR /src
COPY requirements/uv.lock requirements/prune.sh requirements/
RUN python -m venv /opt/uv \
 && /opt/uv/bin/pip install --no-cache-dir --require-hashes -r requirements/uv.lock \
 && /opt/uv/bin/uv venv /opt/venv

# The wheel carries models/ and no dependencies. hatchling comes from the development lock, by its hash. Found as an
# index finds it, the wheel does not leave its path behind; the time of its file, which uv notes, is taken out.
FROM builder AS project
COPY requirements/dev.lock requirements/dev.lock
COPY pyproject.toml README.md LICENSE ./
COPY pipeline pipeline
COPY service service
COPY batch batch
COPY export export
COPY training training
COPY cli cli
COPY models models
RUN /opt/uv/bin/uv build --wheel --require-hashes --build-constraints requirements/dev.lock --out-dir /dist \
 && /opt/uv/bin/uv pip install --no-deps --no-index --find-links /dist --prefix /opt/project deepfake-detect \
 && find /opt/project -name RECORD -exec sed -i '/uv_cache.json/d' {} + \
 && find /opt/project \( -name uv_cache.json -o -name .lock \) -delete

FROM builder AS dependencies-cpu
COPY requirements/cpu.lock requirements/cpu.lock
RUN /opt/uv/bin/uv pip sync --require-hashes requirements/cpu.lock \
 && sh requirements/prune.sh /opt/venv

FROM builder AS dependencies-gpu
COPY requirements/gpu.lock requirements/gpu.lock
RUN /opt/uv/bin/uv pip sync --require-hashes requirements/gpu.lock \
 && sh requirements/prune.sh /opt/venv

FROM base AS runtime
# The day of useradd's entry, among others; `docker build --build-arg SOURCE_DATE_EPOCH=...` sets it.
ARG SOURCE_DATE_EPOCH
LABEL org.opencontainers.image.title="deepfake-detect" \
      org.opencontainers.image.description="Says whether the faces in a video clip were manipulated." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="0.1.0"
# tini as the first process reaps what a killed decoder leaves behind and passes signals on.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends tini=0.19.0-1* \
 && useradd --uid 10001 --user-group --no-log-init --no-create-home --home-dir /tmp --shell /usr/sbin/nologin detector \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* /var/cache/ldconfig/* /var/cache/debconf/*-old /var/log/apt /var/log/*.log
# ONNX Runtime's official builds report to Microsoft unless they are told not to before they load.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONSAFEPATH=1 \
    PYTHONUNBUFFERED=1 \
    DETECTOR_HOST=0.0.0.0 \
    DETECTOR_PORT=8000
# All scratch lies in /tmp: run with a read-only root and a tmpfs there.
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
  CMD ["python", "-I", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['DETECTOR_PORT']), timeout=4); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["tini", "--", "deepfake-detect"]
CMD ["serve"]

# Dependencies before the project, so that a change of code leaves their layer as it is, also in registries and on nodes.
FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    DETECTOR_PROVIDER=require
COPY --from=dependencies-gpu /opt/venv /opt/venv
COPY --from=project /opt/project /opt/venv

FROM runtime AS cpu
ENV DETECTOR_PROVIDER=cpu
COPY --from=dependencies-cpu /opt/venv /opt/venv
COPY --from=project /opt/project /opt/venv
