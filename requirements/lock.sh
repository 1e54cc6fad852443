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
# What is in each image, and what makes the wheel that all of them install.
image() {
  local name=$1
  shift
  compile "$@" --constraint requirements/dev.txt --output-file "requirements/$name.txt"
}

image gateway pyproject.toml --extra gateway
image evaluator pyproject.toml <(echo 'psycopg[binary]') --extra evaluator
image export pyproject.toml --extra export --extra cli
image build --group build
compile <(echo uv) --output-file requirements/uv.txt
