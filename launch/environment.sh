# Makes and renews the environment that the scripts beside it use: .venv in the checkout. To be sourced.
#
#   PYTHON=/path/to/python        the interpreter to make it with (default: the first of python3, python3.11 ...
#                                 that is 3.11 or newer)
#   JAXFORMER_EXTRAS=cuda13       what to install besides: cuda12, cuda13, tpu, aot, bench; several with commas
#                                 (default: cuda12 or cuda13 if the machine has an NVIDIA driver that is new enough)
#
# A script that wants other versions sets these three after sourcing it (test.sh --newest does).

ROOT=$(cd -P "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
VENV=$ROOT/.venv
CONSTRAINTS=$ROOT/constraints.txt
MINOR=11 # Python 3.11 or newer

say() { printf '%s\n' "$*" >&2; }

# Prints an interpreter that is new enough; explains what to do if there is none.
find_python() {
    local candidate
    for candidate in ${PYTHON:-python3 python3.11 python3.12 python3.13 python3.14 python}; do
        if "$candidate" -c "import sys, venv, ensurepip; sys.exit(sys.version_info < (3, $MINOR))" 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    say "No Python 3.$MINOR or newer with venv was found (tried: ${PYTHON:-python3, python3.11 to python3.14, python})."
    say "Install one (Debian and Ubuntu: apt install python3 python3-venv), or name one: PYTHON=/path/to/python $0 ..."
    return 2
}

# Prints the extras for this machine's accelerators. JAX's CUDA 13 build wants driver 580, CUDA 12's wants 525.
accelerator_extras() {
    local driver
    driver=$(nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | head -n 1 | cut -d . -f 1)
    case $driver in
    '' | *[!0-9]*) ;;
    *) if [ "$driver" -ge 580 ]; then echo cuda13; elif [ "$driver" -ge 525 ]; then echo cuda12; fi ;;
    esac
}

# Prints what the environment has to be made from, as one number.
fingerprint() { cat "$ROOT/pyproject.toml" "$CONSTRAINTS" <(echo "$1 $ROOT") | cksum; }

# ensure_environment [EXTRA]: installs what is missing. A stamp is written last, so that an interrupted
# installation is done again; a lock lets one of several scripts install while the others wait.
ensure_environment() {
    local extras wanted stamp python
    extras=${JAXFORMER_EXTRAS-$(accelerator_extras)}${1:+,$1}
    extras=${extras#,}
    wanted=$(fingerprint "$extras")
    stamp=$VENV/.installed${1:+-$1}
    [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ] && [ -x "$VENV/bin/jaxformer" ] && return

    python=$(find_python) || return
    mkdir -p "$VENV"
    exec 9>"$VENV/.lock"
    # The lock belongs to descriptor 9, whoever asks for it, until that is closed.
    "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX | fcntl.LOCK_NB)' 2>/dev/null || {
        say "Another installation into $VENV is under way; waiting for it ..."
        "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' || return
    }
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || [ ! -x "$VENV/bin/jaxformer" ]; then
        say "Installing jaxformer${extras:+[$extras]} into $VENV (once, some minutes) ..."
        rm -f "$stamp"
        if ! "$VENV/bin/python" -c 'import pip' 2>/dev/null; then
            find "$VENV" -mindepth 1 -maxdepth 1 ! -name .lock -exec rm -rf {} +
            "$python" -m venv "$VENV" || return
        fi
        "$VENV/bin/python" -m pip install --quiet --disable-pip-version-check \
            --constraint "$CONSTRAINTS" --editable "$ROOT${extras:+[$extras]}" || {
            say "The installation failed; its reason stands above. The same command tries again."
            return 1
        }
        echo "$wanted" >"$stamp"
    fi
    exec 9>&-
}
