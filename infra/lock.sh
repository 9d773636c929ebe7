#!/usr/bin/env bash
# Writes infra/dev.lock and infra/worker.lock: every package of the development set-up and of the worker's image (infra/Dockerfile)
# with its version and hashes, for Linux on x86_64 and Python 3.11. Run it after a change of constraints.txt or of the dependencies
# in pyproject.toml. infra/setup.sh installs PyTorch and its own dependencies (with or without CUDA) before the lock, so the locks
# leave them out.
#
#   infra/lock.sh [worker]          (worker: infra/worker.lock alone)
set -euo pipefail
cd "$(dirname "$0")/.."
tools=$(mktemp -d)
trap 'rm -rf "$tools"' EXIT
python3 -m venv "$tools/venv"
"$tools/venv/bin/pip" install --quiet uv
compile() {
  "$tools/venv/bin/uv" pip compile pyproject.toml --quiet --constraint constraints.txt --generate-hashes \
    --python-platform x86_64-unknown-linux-gnu --python-version 3.11 --no-annotate --no-header --output-file "$tools/lock" "$@" >/dev/null
}
lock() { # EXTRA ARGUMENT...
  compile --extra "$@"
  local without=(--no-emit-package torch --no-emit-package triton --no-emit-package setuptools) name
  for name in $(grep -oE '^(nvidia|cuda)-[a-z0-9-]+' "$tools/lock"); do without+=(--no-emit-package "$name"); done
  rm "$tools/lock"
  compile --extra "$@" "${without[@]}"
  { echo "# Made by infra/lock.sh."; cat "$tools/lock"; } >"infra/$1.lock"
  rm "$tools/lock"
}
[ "${1:-}" = worker ] || lock dev
lock worker --constraint infra/dev.lock # the versions that the tests run with
