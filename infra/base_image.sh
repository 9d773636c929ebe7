#!/usr/bin/env bash
# Makes the Docker image debian:bookworm-slim from Debian's packages, where no registry can be reached. Needs mmdebstrap.
#
#   infra/base_image.sh [MIRROR]        (default: http://deb.debian.org/debian)
set -euo pipefail
name=debian:bookworm-slim
if docker image inspect "$name" >/dev/null 2>&1; then
  echo "$name is there"
  exit 0
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mmdebstrap --quiet --variant=minbase --mode=root bookworm "$scratch/base.tar" "${1:-http://deb.debian.org/debian}"
docker import "$scratch/base.tar" "$name"
