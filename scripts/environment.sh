# Sourced by the other scripts: finds an interpreter that can host the CPU stack and keeps .venv in step with
# pyproject.toml. Nothing is installed when nothing changed.

say() { printf '%s\n' "$*"; }
fail() { printf 'error: %s\n' "$1" >&2; shift; for line in "$@"; do printf '  %s\n' "$line" >&2; done; exit 4; }

# timed LABEL COMMAND...: run a command, then say how long it took.
timed() {
  local label=$1 started=$SECONDS; shift
  say "==> $label"
  "$@" || return
  say "    $label: $((SECONDS - started)) s"
}

check_machine() {
  [ "$(uname -s)" = Linux ] || fail "this is $(uname -s); the CPU stack runs on Linux"
  [ "$(uname -m)" = x86_64 ] || fail "this is $(uname -m); the tritonserver wheel is built for x86-64 only"
  local glibc
  glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | cut -d' ' -f2)
  case "$(printf '2.35\n%s\n' "${glibc:-0}" | sort -V | head -n 1)" in
    2.35) ;;
    *) fail "glibc is ${glibc:-not found}; the tritonserver wheel needs 2.35 or newer" \
         "Debian 12, Ubuntu 22.04, Fedora 36, or anything newer has it." ;;
  esac
}

# interpreter_problem PYTHON: print what keeps PYTHON from hosting the stack; print nothing when it can.
interpreter_problem() {
  "$1" - <<'EOF' 2>/dev/null || echo "$1 cannot be run"
import ctypes, importlib.util, sys, sysconfig
from pathlib import Path
version = "%d.%d" % sys.version_info[:2]
if not (3, 10) <= sys.version_info[:2] <= (3, 12):
    print(f"Python {version} is outside 3.10-3.12")
elif not all(importlib.util.find_spec(name) for name in ("venv", "ensurepip")):
    print(f"venv is missing: install python{version}-venv (Debian, Ubuntu)")
else:
    name = f"libpython{version}.so.1.0"
    try:
        ctypes.CDLL(name)
    except OSError:
        if not (Path(sysconfig.get_config_var("LIBDIR") or "/usr/lib") / name).exists():
            print(f"{name} is missing: install libpython{version} (Debian, Ubuntu) or python{version}-libs (Fedora); "
                  "an interpreter of your own build needs --enable-shared")
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
  fail "no usable Python 3.10-3.12:" "${problems[@]}"
}

# ensure_environment EXTRAS: make .venv and install the package with EXTRAS, unless that was done already.
ensure_environment() {
  check_machine
  local extras=$1 stamp=.venv/.installed wanted
  if [ ! -x .venv/bin/python ] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    choose_interpreter
    say "    interpreter: $PYTHON"
    "$PYTHON" -m venv --clear .venv || fail "$PYTHON could not make .venv"
  fi
  wanted=$(cat pyproject.toml scripts/constraints.txt | sha256sum | cut -d' ' -f1)
  if grep -qxF "$extras $wanted" "$stamp" 2>/dev/null; then
    say "    .venv is up to date"
    return
  fi
  # The stamp holds every set of extras installed from these files; other files make it start anew.
  grep -qF "$wanted" "$stamp" 2>/dev/null || rm -f "$stamp"
  .venv/bin/python -m pip install --quiet --disable-pip-version-check \
    --constraint scripts/constraints.txt --editable ".[$extras]" ||
    fail "pip could not install the package; its message is above"
  echo "$extras $wanted" >>"$stamp"
}
