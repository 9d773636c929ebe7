#!/usr/bin/env bash
# Looks up the digests of the images that registries have, and prints them as lines for infra/.env. The part from `sha256:` on is
# what `digest` in infra/kubernetes/kustomization.yaml takes, and DEBIAN_IMAGE is for infra/base_image.sh. Needs docker buildx.
set -euo pipefail
cd "$(dirname "$0")"
{
  echo DEBIAN_IMAGE debian:bookworm-slim
  sed -nE 's/.*\$\{([A-Z]+_IMAGE):-([^}]+)\}.*/\1 \2/p' compose.yaml
} | sort -u | while read -r name image; do
  digest=$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}' </dev/null)
  echo "$name=$image@$digest"
done
