#!/usr/bin/env bash
# Makes .venv: PyTorch first, so that a CPU machine does not download gigabytes of CUDA, then the other packages.
set -euo pipefail
cd "$(dirname "$0")/.."

command -v "$PYTHON" >/dev/null || { echo "no Python at $PYTHON; set PYTHON=/path/to/python3.11" >&2; exit 2; }
"$PYTHON" - <<'CHECK' || exit 2
import sys
if sys.version_info < (3, 11):
    sys.exit("selftrain needs Python 3.11 or newer, this is %s; set PYTHON=/path/to/python3.11" % sys.version.split()[0])
CHECK
[ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
pip() { .venv/bin/python -m pip --disable-pip-version-check "$@"; }
# A person sees each package and pip's bar; the log of a build has a line for each large step.
install() { if [ -t 1 ]; then pip install "$@"; else pip install --quiet "$@"; fi; }

torch=$(grep '^torch==' constraints.txt)
# Check the version, and with GPU=1 also that it is a CUDA build: a CPU build has the same version.
if ! .venv/bin/python - "${torch#torch==}" "$GPU" 2>/dev/null <<'CHECK'
import sys
import torch
wanted, gpu = sys.argv[1:]
sys.exit(torch.__version__.split("+")[0] != wanted or (gpu != "" and torch.version.cuda is None))
CHECK
then
  echo "installing $torch"
  [ -z "$GPU" ] || pip uninstall --quiet --yes torch 2>/dev/null
  if [ -n "$GPU" ] || [ "$(uname -s)" != Linux ] || [ -z "$TORCH_INDEX" ]; then
    install "$torch"
  elif ! install --retries 0 --timeout 10 --index-url "$TORCH_INDEX" "$torch" 2>/dev/null; then
    echo "no CPU build of $torch at $TORCH_INDEX; installing the one of the default package index"
    install "$torch"
  fi
fi
echo "installing the other packages (about four minutes)"
platform="$(uname -sm) $(.venv/bin/python -c 'import sys; print(*sys.version_info[:2], sep=".")')"
lock="infra/${EXTRAS:-dev}.lock"
if [ -e "$lock" ] && [ "$platform" = "Linux x86_64 3.11" ]; then
  # The lock names every package with its hash: see infra/lock.sh.
  install --no-deps --require-hashes --requirement "$lock"
  # With the build tools that the lock has, if it has them; else pip fetches them.
  isolation=$(grep -q '^hatchling==' "$lock" && echo --no-build-isolation || true)
  install --no-deps $isolation --editable .
else
  install --constraint constraints.txt --editable ".[${EXTRAS:-dev}]"
fi
