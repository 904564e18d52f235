# headway on CUDA, as a user without privileges, with the versions it was tested with.
#   docker build -t headway .
#   docker run --gpus all -v "$PWD/runs:/work/runs" headway fit gpt-python-docs
ARG BASE=nvidia/cuda:13.0.1-runtime-ubuntu24.04
FROM ${BASE}

SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# gcc and the Python headers: DeepSpeed builds from source.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc g++ git python3 python3-dev python3-venv \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 headway \
    && install --directory --owner=headway /opt/headway /work

USER 10001
ENV PATH=/opt/headway/venv/bin:$PATH PYTHONUNBUFFERED=1
WORKDIR /opt/headway

# The dependencies change seldom and the code often: two layers.
COPY --chown=headway constraints.txt ./
RUN python3 -m venv venv \
    && pip install --no-cache-dir --constraint constraints.txt pip setuptools wheel \
    && pip install --no-cache-dir --constraint constraints.txt torch lightning deepspeed wandb 'ray[tune]'
COPY --chown=headway pyproject.toml README.md LICENSE ./
COPY --chown=headway platform platform
COPY --chown=headway recipes recipes
COPY --chown=headway cluster cluster
RUN pip install --no-cache-dir --constraint constraints.txt .

WORKDIR /work
HEALTHCHECK --interval=5m --timeout=60s CMD ["headway", "doctor"]
ENTRYPOINT ["headway"]
CMD ["--help"]
