# Two images from one file: `docker build --target cpu .` (the default) and `docker build --target gpu .`.
# Bases are pinned by tag here; a release pipeline pins them by digest.
# The CUDA and cuDNN libraries of `gpu` are wheels of requirements/gpu.lock, so both share their bases.

FROM python:3.11-slim-bookworm AS builder
ENV UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_NO_CACHE=1 \
    UV_PYTHON_DOWNLOADS=never \
    VIRTUAL_ENV=/opt/venv
WORKDIR /src
COPY requirements/uv.lock requirements/uv.lock
RUN python -m venv /opt/uv \
 && /opt/uv/bin/pip install --no-cache-dir --require-hashes -r requirements/uv.lock \
 && /opt/uv/bin/uv venv /opt/venv

# The wheel carries models/ and no dependencies. hatchling comes from the development lock, by its hash.
FROM builder AS wheel
COPY requirements/dev.lock requirements/dev.lock
COPY pyproject.toml README.md LICENSE ./
COPY pipeline pipeline
COPY service service
COPY batch batch
COPY export export
COPY training training
COPY cli cli
COPY models models
RUN /opt/uv/bin/uv build --wheel --require-hashes --build-constraints requirements/dev.lock --out-dir /dist

# Dependencies before the project, so that a change of code leaves their layer in the cache.
FROM builder AS builder-cpu
COPY requirements/cpu.lock requirements/cpu.lock
RUN /opt/uv/bin/uv pip sync --require-hashes requirements/cpu.lock
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    /opt/uv/bin/uv pip install --no-deps /dist/*.whl

FROM builder AS builder-gpu
COPY requirements/gpu.lock requirements/gpu.lock
RUN /opt/uv/bin/uv pip sync --require-hashes requirements/gpu.lock
RUN --mount=type=bind,from=wheel,source=/dist,target=/dist \
    /opt/uv/bin/uv pip install --no-deps /dist/*.whl

FROM python:3.11-slim-bookworm AS runtime
LABEL org.opencontainers.image.title="deepfake-detect" \
      org.opencontainers.image.description="Says whether the faces in a video clip were manipulated." \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="0.1.0"
# tini as the first process reaps what a killed decoder leaves behind and passes signals on.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends tini=0.19.0-1* \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin detector
# ONNX Runtime's official builds report to Microsoft unless they are told not to before they load.
ENV PATH=/opt/venv/bin:$PATH \
    HOME=/tmp \
    ORT_DISABLE_TELEMETRY=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DETECTOR_HOST=0.0.0.0 \
    DETECTOR_PORT=8000
# All scratch lies in /tmp: run with a read-only root and a tmpfs there.
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=4 \
  CMD ["python", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ['DETECTOR_PORT']), timeout=4); c.request('GET', '/livez'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["tini", "--", "deepfake-detect"]
CMD ["serve"]

FROM runtime AS gpu
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    DETECTOR_PROVIDER=require
COPY --from=builder-gpu /opt/venv /opt/venv

FROM runtime AS cpu
ENV DETECTOR_PROVIDER=cpu
COPY --from=builder-cpu /opt/venv /opt/venv
