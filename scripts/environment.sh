# Sourced by the other scripts: finds an interpreter that can host the CPU stack and keeps .venv in step with
# pyproject.toml. Nothing is installed when nothing changed.

MIN_FREE_MIB=2048

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$1" >&2; shift; for line in "$@"; do printf '  %s\n' "$line" >&2; done; exit 4; }
# Without it a Ctrl-C during pip would end in pip's failure and a wrong message.
trap 'echo interrupted >&2; exit 130' INT

# timed LABEL COMMAND...: run a command, then say how long it took.
timed() {
  local label=$1 started=$SECONDS; shift
  say "==> $label"
  "$@" || return
  say "    took $((SECONDS - started)) s"
}

check_machine() {
  [ "$(uname -s)" = Linux ] || fail "this is $(uname -s); the CPU stack runs on Linux"
  [ "$(uname -m)" = x86_64 ] || fail "this is $(uname -m); the tritonserver wheel is built for x86-64 only"
  local glibc free_mib
  glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2) || glibc=
  case "$(printf '2.35\n%s\n' "${glibc:-0}" | sort -V | head -n 1)" in
    2.35) ;;
    *) fail "glibc is ${glibc:-not found}; the tritonserver wheel needs 2.35 or newer" \
         "Debian 12, Ubuntu 22.04, Fedora 36, or anything newer has it." ;;
  esac
  [ -w . ] || fail "$PWD cannot be written, and .venv, builds and triton_repo go there" \
    "Clone the project into a folder of your own."
  free_mib=$(df -Pm . | awk 'NR == 2 { print $4 }')
  [ -d .venv ] || [ "$free_mib" -ge $MIN_FREE_MIB ] ||
    fail "$free_mib MiB are free in $PWD; the packages and the first build need $MIN_FREE_MIB"
}

# interpreter_problem PYTHON: print what keeps PYTHON from hosting the stack; print nothing when it can.
interpreter_problem() {
  "$1" - <<'EOF' 2>/dev/null || echo "cannot be run"
import sys
version = "%d.%d" % sys.version_info[:2]
if not (3, 10) <= sys.version_info[:2] <= (3, 12):
    sys.exit(print("Python %s is outside 3.10-3.12" % version))
import ctypes, importlib.util, sysconfig
from pathlib import Path
if not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
    print("venv is missing: install python%s-venv (Debian, Ubuntu)" % version)
else:
    name = "libpython%s.so.1.0" % version
    try:
        ctypes.CDLL(name)
    except OSError:
        if not (Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib") / name).exists():
            print("%s is missing: install libpython%s (Debian, Ubuntu) or python%s-libs (Fedora); an interpreter of "
                  "your own build needs --enable-shared" % (name, version, version))
EOF
}

# Sets PYTHON to the first interpreter that qualifies; $PYTHON, when set, is the only one looked at.
choose_interpreter() {
  local candidate problem problems=()
  for candidate in ${PYTHON:-python3.12 python3.11 python3.10 python3 python}; do
    command -v "$candidate" >/dev/null 2>&1 || { problems+=("$candidate: not found"); continue; }
    problem=$(interpreter_problem "$candidate")
    if [ -z "$problem" ]; then PYTHON=$(command -v "$candidate"); return; fi
    problems+=("$candidate: $problem")
  done
  fail "no usable Python 3.10-3.12:" "${problems[@]}" "Another one may be named: PYTHON=/path/to/python3.11 $0"
}

# Makes .venv where there is none that works: one that was moved, or whose interpreter is gone, does not.
ensure_venv() {
  if .venv/bin/pip --version >/dev/null 2>&1; then
    [ -z "${PYTHON:-}" ] || same_version "$PYTHON" .venv/bin/python ||
      fail ".venv was made with another Python than PYTHON=$PYTHON" "Remove it to start anew: rm -r .venv"
    return
  fi
  choose_interpreter
  say "    interpreter: $PYTHON"
  rm -rf .venv
  "$PYTHON" -m venv .venv || fail "$PYTHON could not make .venv; its message is above"
}

same_version() {
  local program='import sys; print(sys.version_info[:2])'
  [ "$("$1" -c "$program" 2>&1)" = "$("$2" -c "$program")" ]
}

# is_installed EXTRAS STATE: was this state of the project installed with at least EXTRAS?
is_installed() {
  local extra line
  while read -r line; do
    [ "${line#* }" = "$2" ] || continue
    for extra in ${1//,/ }; do
      case ",${line%% *}," in *",$extra,"*) ;; *) continue 2 ;; esac
    done
    return
  done < <(cat .venv/.installed 2>/dev/null)
  return 1
}

# ensure_environment EXTRAS: make .venv and install the package with EXTRAS, unless that was done already.
ensure_environment() {
  if [ -L .venv ]; then
    say "    .venv is a link into another checkout: used as it is"
    return
  fi
  check_machine
  ensure_venv
  local extras=$1 state
  state=$(cat pyproject.toml scripts/constraints.txt | sha256sum | cut -d' ' -f1)
  if is_installed "$extras" "$state"; then
    say "    .venv is up to date"
    return
  fi
  # The stamp holds every set of extras installed from this state; another state makes it start anew.
  grep -qF "$state" .venv/.installed 2>/dev/null || rm -f .venv/.installed
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint scripts/constraints.txt --editable ".[$extras]" ||
    fail "pip could not install the package; its message is above" \
      "It needs PyPI, directly or by the proxy or index that pip is configured for (pip config list)."
  echo "$extras $state" >>.venv/.installed
}
