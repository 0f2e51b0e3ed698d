# Two images from one file:
#
#   docker build --target api .       HTTP API and page, and delivery of webhooks; holds no torch
#   docker build --target worker .    model worker for CPUs
#   docker build --target worker --build-arg TORCH=cuda .
#                                     model worker for NVIDIA GPUs
#
# Needs Docker Engine 25 or later (BuildKit). Packages are installed by the hashes in deploy/requirements. Two hashes must be looked up at their
# source; docs/deployment.md says how:
#
#   --build-arg BASE=python:3.11.15-slim-trixie@sha256:…    base image
#   --build-arg TORCH_CPU_SHA256=…                          torch for CPUs
#
# --build-arg REVISION="$(git rev-parse HEAD)" labels the image with its source.

ARG BASE=python:3.11.15-slim-trixie
FROM ${BASE} AS base


# Packages and code are in separate layers, so that a change of the code does not download the packages
# again: packages in the virtual environment /opt/gamma, code in /opt/code, which it finds by a file
# code.pth. pip stays outside; only these two folders are copied on.
FROM base AS requirements
WORKDIR /src
COPY deploy/requirements ./
RUN python -m venv --without-pip /opt/gamma \
    && echo /opt/code > /opt/gamma/lib/python3.11/site-packages/code.pth


FROM base AS wheel
WORKDIR /src
COPY deploy/requirements/build.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --root-user-action=ignore --require-hashes -r build.txt
COPY pyproject.toml README.md LICENSE ./
COPY app ./app
COPY model ./model
COPY pictures ./pictures
COPY training ./training
COPY worker ./worker
RUN pip wheel --no-deps --no-build-isolation --wheel-dir /wheels .


# Without byte code, whose times would change the layer at each build.
FROM requirements AS code
COPY --from=wheel /wheels /wheels
RUN pip --python /opt/gamma/bin/python install --no-deps --no-compile --target /opt/code /wheels/*.whl


FROM requirements AS packages-api
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/gamma/bin/python install --no-compile --require-hashes -r api.txt


# The API needs no weights.
FROM packages-api AS build-api
COPY --from=code /opt/code /opt/code
RUN pip --python /opt/gamma/bin/python check \
    && find /opt/code/model -name "*.safetensors" -delete


FROM requirements AS packages-worker
ARG TORCH=cpu
RUN --mount=type=cache,target=/root/.cache/pip \
    pip --python /opt/gamma/bin/python install --require-hashes -r "worker-$TORCH.txt"
# torch for NVIDIA GPUs is on PyPI and in the requirements. torch for CPUs, a tenth of the size, comes
# from PyTorch's own index, which has a hash too; TORCH_CPU_SHA256 is checked first.
ARG TORCH_CPU_SHA256
RUN --mount=type=cache,target=/root/.cache/pip \
    if [ "$TORCH" = cpu ]; then \
        grep -o "^torch==[0-9.]*" worker-cuda.txt \
            | sed "s/$/${TORCH_CPU_SHA256:+ --hash=sha256:$TORCH_CPU_SHA256}/" > torch.txt \
        && pip --python /opt/gamma/bin/python install --no-deps \
            --index-url https://download.pytorch.org/whl/cpu -r torch.txt; \
    fi


FROM packages-worker AS build-worker
COPY --from=code /opt/code /opt/code
RUN pip --python /opt/gamma/bin/python check


# Shared by both images: an unprivileged user with a fixed id, no installer, only /tmp writable. They
# bind all interfaces, because a container's loopback cannot be reached; without keys the API refuses
# to start like that.
FROM base AS runtime
RUN pip uninstall --yes --root-user-action=ignore pip setuptools wheel \
    && groupadd --gid 10001 gamma \
    && useradd --uid 10001 --gid gamma --no-create-home --home-dir /tmp --shell /usr/sbin/nologin gamma
COPY deploy/healthcheck.py /usr/local/bin/healthcheck.py
ENV PATH=/opt/code/bin:/opt/gamma/bin:$PATH \
    HOME=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    GAMMA_HOST=0.0.0.0 \
    GAMMA_PORT=8000 \
    GAMMA_METRICS_HOST=0.0.0.0 \
    GAMMA_METRICS_PORT=9400 \
    GAMMA_LOG_FORMAT=json
# A gamma.toml mounted here is read.
WORKDIR /etc/gamma
ENTRYPOINT ["gamma"]


FROM runtime AS worker
COPY --from=packages-worker /opt/gamma /opt/gamma
# Models downloaded from a hub are kept here; a volume inherits this owner.
RUN install --directory --owner=10001 --group=10001 /models
ENV HF_HOME=/models
COPY --from=build-worker /opt/code /opt/code
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="GAMMA worker" \
      org.opencontainers.image.description="Runs the GAMMA network on pictures from the queue" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11.15-slim-trixie"
USER 10001:10001
EXPOSE 9400
# The port opens once the model is warm; the gauge is 0 while the device does not answer.
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s --start-interval=2s \
    CMD python -I /usr/local/bin/healthcheck.py "$GAMMA_METRICS_PORT" /metrics "gamma_worker_up 1.0"
CMD ["worker"]


FROM runtime AS api
COPY --from=packages-api /opt/gamma /opt/gamma
# Reviews are kept here unless they are in PostgreSQL; a volume inherits this owner.
RUN install --directory --owner=10001 --group=10001 --mode=700 /var/lib/gamma
ENV GAMMA_DATA_DIR=/var/lib/gamma
COPY --from=build-api /opt/code /opt/code
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="GAMMA API" \
      org.opencontainers.image.description="AI-generated image detection: HTTP API, page, webhooks" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION" \
      org.opencontainers.image.base.name="docker.io/library/python:3.11.15-slim-trixie"
USER 10001:10001
EXPOSE 8000 9400
# Liveness, not readiness: an API without a worker tells its callers, and must not be restarted.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --start-interval=1s \
    CMD python -I /usr/local/bin/healthcheck.py "$GAMMA_PORT" /livez
CMD ["api"]
