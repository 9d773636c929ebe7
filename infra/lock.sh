#!/usr/bin/env bash
# Writes infra/dev.lock: every package of the development set-up with its version and hashes, for Linux on x86_64 and Python 3.11.
# Run it after a change of constraints.txt or of the dependencies in pyproject.toml. infra/setup.sh installs PyTorch and its own
# dependencies (with or without CUDA) before the lock, so the lock leaves them out.
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/venv"
"$tools/venv/bin/pip" install --quiet uv
compile() {
  "$tools/venv/bin/uv" pip compile pyproject.toml --quiet --extra dev --constraint constraints.txt --generate-hashes \
    --python-platform x86_64-unknown-linux-gnu --python-version 3.11 --no-annotate --no-header --output-file "$tools/lock" "$@" >/dev/null
}
compile
without=(--no-emit-package torch --no-emit-package triton --no-emit-package setuptools)
for name in $(grep -oE '^(nvidia|cuda)-[a-z0-9-]+' "$tools/lock"); do without+=(--no-emit-package "$name"); done
rm "$tools/lock"
compile "${without[@]}"
{ echo "# Made by infra/lock.sh."; cat "$tools/lock"; } >infra/dev.lock
