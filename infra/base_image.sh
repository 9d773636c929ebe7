#!/usr/bin/env bash
# Makes the Docker image debian:bookworm-slim, which the sandbox's images start from: where no registry can be reached from Debian's
# packages, by mmdebstrap; with DEBIAN_IMAGE=debian:bookworm-slim@sha256:... it is the registry's image of that digest.
#
#   infra/base_image.sh [MIRROR]        (default: http://deb.debian.org/debian)
set -euo pipefail
name=debian:bookworm-slim
if [ -n "${DEBIAN_IMAGE:-}" ]; then
  docker pull --quiet "$DEBIAN_IMAGE"
  exec docker tag "$DEBIAN_IMAGE" "$name"
fi
if docker image inspect "$name" >/dev/null 2>&1; then
  echo "$name exists already"
  exit 0
fi
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
mmdebstrap --quiet --variant=minbase --mode=root bookworm "$scratch/base.tar" "${1:-http://deb.debian.org/debian}"
docker import "$scratch/base.tar" "$name"
