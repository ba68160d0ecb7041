#!/usr/bin/env bash
# Run submission.ipynb as so many hosts would, on this machine: bash scripts/run_hosts.sh 2 [options of run.sh]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
case "${1:-}" in
  [1-9]*) export HOSTS="$1"; shift ;;
  *) echo "How many hosts? bash scripts/run_hosts.sh 2 [options of run.sh]" >&2; exit 2 ;;
esac
prepare_environment requirements.txt  # once, not once for each
export JAX_PLATFORMS=cpu  # chips cannot be shared by processes
port="$(.venv/bin/python -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')"
export COORDINATOR="127.0.0.1:$port"
hosts=()
for ((host = 0; host < HOSTS; host++)); do
  HOST="$host" bash scripts/run.sh "$@" &
  hosts+=($!)
done
trap 'kill "${hosts[@]}" 2>/dev/null || true' INT TERM
code=0
for host in "${hosts[@]}"; do
  wait "$host" || code=$?
done
exit "$code"
