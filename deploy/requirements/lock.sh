#!/bin/sh
# Write the requirements of the images, with hashes, after a change of pyproject.toml or of
# constraints.txt. Needs uv.
#
# api.txt          the API and the delivery of webhooks
# worker-cuda.txt  the worker for NVIDIA GPUs: PyPI's torch, and the CUDA libraries that it asks for
# worker-cpu.txt   the same without both: torch for CPUs has an index of its own
# build.txt        what builds our wheel
set -eu
cd "$(dirname "$0")/../.."

lock() { # NAME ARGUMENT…
    name=deploy/requirements/$1.txt
    shift
    {
        echo "# Made by deploy/requirements/lock.sh."
        uv pip compile --quiet --python-version 3.11.15 --python-platform x86_64-manylinux_2_28 \
            --generate-hashes --no-annotate --no-header --constraint constraints.txt "$@"
    } >"$name"
}

lock api --extra otel --extra s3 pyproject.toml
lock worker-cuda --extra otel --extra s3 --extra worker pyproject.toml
# A package is a line, and its hashes are the indented ones after it.
awk '/^[a-z#]/ { skip = /^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z0-9-]+)==/ } !skip' \
    deploy/requirements/worker-cuda.txt >deploy/requirements/worker-cpu.txt
python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["build-system"]["requires"], sep="\n")' |
    lock build -
