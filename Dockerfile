# Headless Linux with an NVIDIA GPU: PyTorch's wheels bring CUDA, the host brings the driver and the NVIDIA Container
# Toolkit. Untested: please report what fails.
#
#   docker build --tag dllm-rl .
#   docker run --rm -it --gpus all --shm-size=1g --volume "$PWD/runs:/work/runs" dllm-rl doctor
#   docker run --rm -it --gpus all --shm-size=1g --volume "$PWD/runs:/work/runs" dllm-rl \
#       grid quick --policy device=cuda
FROM python:3.12-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PYTHONUNBUFFERED=1
WORKDIR /work

# What changes rarely comes first: PyTorch, then the browser with the libraries that it needs.
# Playwright's driver needs libatomic before it can install anything.
RUN apt-get update && apt-get install --yes --no-install-recommends libatomic1 \
 && pip install "torch==2.13.0" playwright \
 && playwright install --with-deps --only-shell chromium \
 && rm -rf /var/lib/apt/lists/*

COPY . /src
RUN pip install "/src[peft]"

# As root Chromium's sandbox is off (SECURITY.md). For pages that you do not trust, run as an ordinary user in a
# container that allows user namespaces.
ENTRYPOINT ["dllm-rl"]
CMD ["doctor"]
