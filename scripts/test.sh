#!/usr/bin/env bash
# Set up, check style and the notebook's sync, run the tests that must hold at every commit.
# With --all every test, as CI does. Other arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source scripts/environment.sh
prepare_environment requirements.txt tests/requirements.txt
.venv/bin/ruff check .
.venv/bin/ruff format --check .
.venv/bin/python scripts/build_notebook.py --check
chosen=(-m "not slow")
arguments=()
for argument in "$@"; do
  if [ "$argument" = --all ]; then chosen=(); else arguments+=("$argument"); fi
done
case " $* " in
  *" tests/"*) chosen=() ;;  # what is named is run, slow or not
  *) chosen+=(tests -n "$(nproc)" --dist loadfile --no-loadscope-reorder) ;;
esac
exec .venv/bin/python -m pytest -c tests/pytest.ini --rootdir . "${chosen[@]}" "${arguments[@]}"
