# Sourced by run.sh and test.sh: makes .venv if there is none, and sets JAX up for this machine.
#   prepare_environment REQUIREMENTS...

prepare_environment() {
  local python="${PYTHON:-python3}" stamp=".venv/.installed" wanted
  wanted="$(cat "$@" | cksum)"
  if [ ! -x .venv/bin/python ]; then
    "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || {
      echo "Python 3.11 or 3.12 is needed; $python is $("$python" -V 2>&1). Set PYTHON." >&2
      return 1
    }
    echo "Making .venv"
    "$python" -m venv .venv
  fi
  if ! grep -qsxF "$wanted" "$stamp"; then
    local -a files=()
    for file in "$@"; do files+=(-r "$file"); done
    echo "Installing $*"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "${files[@]}"
    echo "$wanted" >>"$stamp"
  fi
  # Without a TPU, JAX would try libtpu first and say so at length.
  if ! compgen -G '/dev/accel*' >/dev/null && ! compgen -G "/dev/vfio/[0-9]*" >/dev/null; then
    export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
  fi
  # XLA's CPU backend allocates its temporaries anew at every step. Kept by malloc instead of
  # being handed back, they save a third of a training step's time, all of it page faults
  # (7,060 -> 9,550 tokens/s in pre-training).
  export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:glibc.malloc.arena_max=1}"
}
