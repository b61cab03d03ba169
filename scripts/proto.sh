#!/usr/bin/env bash
# Generates backends/rpc from proto/backend.proto. With --check: fails if what is checked in is stale.
set -euo pipefail
cd "$(dirname "$0")/.."
python=${PYTHON:-.venv/bin/python}
out=backends/rpc
[ "${1:-}" = --check ] && out=$(mktemp -d)

# The mapping makes the generated imports right (`backends.rpc`) without patching them.
staging=$(mktemp -d)
PATH="$(dirname "$python"):$PATH" "$python" -m grpc_tools.protoc \
    -Ibackends/rpc=proto --python_out="$staging" --mypy_out="$staging" --grpc_python_out="$staging" \
    backends/rpc/backend.proto
mkdir -p "$out"
cp "$staging"/backends/rpc/* "$out"/
rm -rf "$staging"

if [ "${1:-}" = --check ]; then
    for stub in backend_pb2.py backend_pb2.pyi backend_pb2_grpc.py; do
        cmp -s "$out/$stub" "backends/rpc/$stub" || { echo "backends/rpc/$stub is stale: run 'make proto' and commit"; exit 1; }
    done
    rm -rf "$out"
fi
