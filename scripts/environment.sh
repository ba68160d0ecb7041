# Sourced by run.sh and test.sh: makes .venv if there is none, and sets JAX up for this machine.
#   prepare_environment REQUIREMENTS...

prepare_environment() {
  local python="${PYTHON:-python3}" file wanted stale=""
  if [ ! -x .venv/bin/python ]; then
    "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 12))' || {
      echo "Python 3.11 or 3.12 is needed; $python is $("$python" -V 2>&1). Set PYTHON." >&2
      return 1
    }
    echo "Making .venv"
    "$python" -m venv .venv
  fi
  # Each file's checksum is kept beside what it installed.
  local -a files=()
  for file in "$@"; do
    files+=(-r "$file")
    wanted="$(cksum <"$file")"
    [ "$(cat ".venv/.${file//\//-}" 2>/dev/null)" = "$wanted" ] || stale=1
  done
  if [ -n "$stale" ]; then
    echo "Installing $*"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check "${files[@]}"
    for file in "$@"; do cksum <"$file" >".venv/.${file//\//-}"; done
  fi
  # Without a TPU, JAX would try libtpu first and say so at length.
  if ! compgen -G '/dev/accel*' >/dev/null && ! compgen -G "/dev/vfio/[0-9]*" >/dev/null; then
    export JAX_PLATFORMS="${JAX_PLATFORMS:-cpu}"
  fi
  # XLA's CPU backend allocates its temporaries anew at every step. Kept by malloc instead of
  # being handed back, they save a quarter of a training step's time, all of it page faults
  # (7,060 -> 9,550 tokens/s in pre-training).
  export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184:glibc.malloc.arena_max=1}"
}
