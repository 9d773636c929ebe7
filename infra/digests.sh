#!/usr/bin/env bash
# Looks up the digests of the images that registries have, and prints them as lines for infra/.env. The part from `sha256:` on is
# what `digest` in infra/kubernetes/kustomization.yaml takes; DEBIAN_IMAGE is for infra/base_image.sh too. Needs docker buildx.
set -euo pipefail
cd "$(dirname "$0")"
sed -nE 's/.*\$\{([A-Z]+_IMAGE):-([^}]+)\}.*/\1 \2/p' compose.yaml | sort -u | while read -r name image; do
  digest=$(docker buildx imagetools inspect "$image" --format '{{.Manifest.Digest}}' </dev/null)
  echo "$name=$image@$digest"
done
