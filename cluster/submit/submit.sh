#!/bin/bash
# Submits a study to a Ray cluster that runs: cluster/submit/submit.sh [STUDY]
# The cluster's dashboard must be reachable here, on the loopback address alone: see the page of the cluster's kind.
# Its token is read from ~/.ray/auth_token, or from the file that RAY_AUTH_TOKEN_PATH names.
set -euo pipefail

study=${1:-search_spaces/quickstart.yaml}
export RAY_AUTH_MODE=token
folder=$(mktemp -d) # the study is all that is uploaded
trap 'rm -rf "$folder"' EXIT
cp "$study" "$folder/study.yaml"

ray job submit --address "${RAY_API_SERVER_ADDRESS:-http://127.0.0.1:8265}" --working-dir "$folder" --entrypoint-num-cpus 0 --no-wait -- \
  raysweep run study.yaml --address auto --store s3://my-bucket/raysweep
