#!/usr/bin/env bash
# Set up, then run submission.ipynb end to end. Options: bash scripts/run.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
prepare_environment requirements.txt
PYTHONUNBUFFERED=1 exec .venv/bin/python scripts/run_notebook.py "$@"
