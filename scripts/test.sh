#!/usr/bin/env bash
# Set up, check style and the notebook's sync, run the tests. Arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
prepare_environment requirements.txt tests/requirements.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/python scripts/build_notebook.py --check
case " $* " in *" tests/"*) ;; *) set -- tests "$@" ;; esac
exec .venv/bin/python -m pytest -c tests/pytest.ini --rootdir . "$@"
