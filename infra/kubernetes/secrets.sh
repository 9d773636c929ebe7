#!/usr/bin/env bash
# Makes what kustomization.yaml hands to the components as secrets, in infra/kubernetes/secrets/ (which git and images ignore): random
# passwords and keys, and the certificates with which the sandbox's daemon and its clients know each other. What is there is kept, so
# that it can be edited: a webhook in run.env, another database or S3 service in database.env and store.env. Keep a copy of the folder.
#
#   infra/kubernetes/secrets.sh
set -euo pipefail
umask 077
mkdir -p "$(dirname "$0")/secrets"
cd "$(dirname "$0")/secrets"

random() { openssl rand -hex 24; }
file() { # NAME CONTENT
  if [ -e "$1" ]; then echo "$1: kept"; return; fi
  printf '%s\n' "$2" >"$1.new"
  mv "$1.new" "$1"
  echo "$1: made"
}
password=$(random)
file database.env "POSTGRES_PASSWORD=$password
PREFECT_SERVER_DATABASE_CONNECTION_URL=postgresql+asyncpg://prefect:$password@postgres:5432/prefect"
file store.env "AWS_ACCESS_KEY_ID=selftrain
AWS_SECRET_ACCESS_KEY=$(random)
AWS_ENDPOINT_URL=http://store:8333"
file run.env "SELFTRAIN_WEBHOOK_URL="
file judge.env "SANDBOX_TOKEN=$(random)"
file rerank.env "SELFTRAIN_TOKEN=$(random)"

certificate() { # NAME EXTENSIONS
  if [ -e "$1-cert.pem" ]; then echo "$1-cert.pem: kept"; return; fi
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout "$1-key.pem" -out "$1.csr" -subj "/CN=selftrain sandbox $1" 2>/dev/null
  openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 3650 -out "$1-cert.pem" \
    -extfile <(echo "$2") 2>/dev/null
  rm "$1.csr"
  echo "$1-cert.pem: made"
}
if [ ! -e ca.pem ]; then
  rm -f server-cert.pem client-cert.pem # another authority's
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ca-key.pem -out ca.pem -days 3650 -subj "/CN=selftrain sandbox authority" 2>/dev/null
  echo "ca.pem: made"
fi
certificate server "extendedKeyUsage=serverAuth
subjectAltName=DNS:sandbox.selftrain-sandbox,DNS:sandbox.selftrain-sandbox.svc,DNS:localhost,IP:127.0.0.1"
certificate client "extendedKeyUsage=clientAuth"
