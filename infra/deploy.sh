#!/usr/bin/env bash
# Makes the work pool, the automation and the deployments of prefect.yaml on the server that PREFECT_API_URL names.
set -euo pipefail
cd "$(dirname "$0")/.."
"$BIN/prefect" work-pool inspect selftrain >/dev/null 2>&1 || "$BIN/prefect" work-pool create selftrain --type process
"$BIN/python" infra/automation.py
"$BIN/prefect" --no-prompt deploy --all
