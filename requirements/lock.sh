#!/usr/bin/env bash
# Locks all dependencies with hashes, in a form that names no package registry. Needs `uv` on the path.
set -euo pipefail
cd "$(dirname "$0")/.."

compile() {
  uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate \
    --quiet "$@" >/dev/null
}

compile pyproject.toml --extra all --group dev --group build --output-file requirements/dev.txt
compile pyproject.toml --extra all --group build --constraint requirements/dev.txt --output-file requirements/demo.txt
compile pyproject.toml --extra gateway --group build --constraint requirements/dev.txt --output-file requirements/gateway.txt
compile <(echo uv) --output-file requirements/uv.txt
