# Dreamer in a container. docs/containers.md says how to build it, run it and what it was tried on.
# torch's packages bring CUDA's libraries and the host's driver brings the rest, so the image begins
# with plain Debian, of which it needs Python alone.
ARG BASE=debian:trixie-slim
FROM ${BASE}

RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

# The packages are a layer of their own, which only other requirements build anew. TORCH=2.7 is for
# older cards and drivers (docs/install.md); INDEX_URL names one more registry of packages.
WORKDIR /opt/dreamer
ARG TORCH=newest
ARG INDEX_URL=
COPY pyproject.toml update-runtime.sh ./
COPY hordelib/setup hordelib/setup
RUN PIP_NO_CACHE_DIR=1 ./update-runtime.sh --safety --no-weights --notify --torch "$TORCH" \
    ${INDEX_URL:+--index-url "$INDEX_URL"} && rm -f .runtime/setup.log

COPY . source
RUN .venv/bin/python -m pip install --no-cache-dir --no-deps --disable-pip-version-check ./source \
    && rm -r source hordelib pyproject.toml update-runtime.sh \
    && useradd --uid 1000 --user-group --no-create-home --home-dir /data dreamer \
    && install --directory --owner dreamer --group dreamer --mode 0700 /data

# What NVIDIA's container toolkit gives to a container: the cards, CUDA, and NVML to ask them.
ENV PATH=/opt/dreamer/.venv/bin:$PATH \
    DREAMER_RUNTIME=/opt/dreamer \
    DREAMER_METRICS=0.0.0.0:7862 \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
USER 1000:1000
WORKDIR /data
VOLUME /data
EXPOSE 7861 7862
HEALTHCHECK --interval=30s --timeout=10s --start-period=2m CMD ["python", "-c", \
    "import os, urllib.request; port = os.environ['DREAMER_METRICS'].rpartition(':')[2]; \
    urllib.request.urlopen(f'http://127.0.0.1:{port}/healthz', timeout=8)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["dreamer", "--home", "/data"]
CMD ["run"]
