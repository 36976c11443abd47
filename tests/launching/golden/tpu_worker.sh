#!/usr/bin/env bash
set -euo pipefail
job=ba8a80d35046
revision=0123456789abcdef0123456789abcdef01234567
command=(python -m jaxformer.launching.supervisor --rehearse 3 runs/gpt2_124m jaxformer train --config configs/gpt2_124m.py --config.data.batch_size=512 --workdir runs/gpt2_124m)
# shellcheck disable=SC2016 # expanded when the job starts
setup='export TFDS_DATA_DIR=/data/tfds
export NOTE='"'"'it'"'"'"'"'"'"'"'"'s'"'"'
'

# What a launch does on each TPU VM: bash worker.sh install | start | status JOB | follow BYTES | forget. The settings stand
# above. The code lies in code/, beside this file.
cd "$(dirname "${BASH_SOURCE[0]}")"
here=$PWD

boot=$(cat /proc/sys/kernel/random/boot_id) # numbers of processes begin anew when the host is started

is_running() { [ "$(cat boot 2>/dev/null)" = "$boot" ] && kill -0 "$(cat pid)" 2>/dev/null; }

# Unpacks the code and installs what it needs. What a run has left in the folder of the code stays.
install() {
    mkdir -p code
    tar -xzf code.tar.gz -C code
    export JAXFORMER_EXTRAS=tpu
    # shellcheck disable=SC1091
    . code/launch/environment.sh
    if ! find_python >/dev/null 2>&1; then # Ubuntu 22.04 has Python 3.10
        python3 -m pip install --user --quiet uv
        "$HOME/.local/bin/uv" python install --quiet 3.12
        PYTHON=$("$HOME/.local/bin/uv" python find 3.12)
        export PYTHON
    fi
    ensure_environment
}

# Ends whatever holds the chips, and removes the lock that it may have left.
free_chips() {
    local holders
    holders=$(sudo lsof -t /dev/accel* /dev/vfio/* 2>/dev/null | sort -u || true)
    # shellcheck disable=SC2086 # numbers of processes
    if [ -n "$holders" ]; then sudo kill -9 $holders || true; fi
    sudo rm -f /tmp/libtpu_lockfile
    echo always | sudo tee /sys/kernel/mm/transparent_hugepage/enabled >/dev/null || true
}

# Starts the job in a session of its own, which outlives the connection.
start() {
    if is_running; then return; fi
    free_chips
    rm -f exit
    echo "$job" >started
    echo "$boot" >boot
    : >log
    cd code
    # shellcheck disable=SC2016 # expanded in there
    PATH=$PWD/.venv/bin:$PATH JAXFORMER_REVISION=$revision setsid nohup bash -c '
        code=0; { eval "$1" && shift && "$@"; } || code=$?; echo "$code" >"$0/exit.new"; mv "$0/exit.new" "$0/exit"
    ' "$here" "$setup" "${command[@]}" >>"$here/log" 2>&1 </dev/null &
    echo $! >"$here/pid"
}

# Prints how a job is: running, exit CODE, or none: it was never started here, or the host was started anew since.
status() {
    if [ "$(cat started 2>/dev/null)" != "$1" ]; then
        echo none
    elif [ -f exit ]; then
        echo "exit $(cat exit)"
    elif is_running; then
        echo running
    else
        echo none
    fi
}

# Prints the log behind its first BYTES, until the job has ended.
follow() {
    local until=()
    [ -f exit ] || until=(--follow=name --retry --pid="$(cat pid)" --sleep-interval=0.2)
    tail --bytes="+$(($1 + 1))" ${until[@]+"${until[@]}"} log 2>/dev/null
}

# Lets the same job be started anew.
forget() { rm -f started exit pid boot; }

"$@"
