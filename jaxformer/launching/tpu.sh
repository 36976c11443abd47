# Launches a job on a slice of TPU VMs, or takes it up again if it is there. The settings stand above.

say() { printf 'launch: %s\n' "$*" >&2; }
fail() {
    say "$1"
    exit "${2-2}"
}
tpus() { gcloud compute tpus "$@" --zone="$zone" --project="$project" --quiet --verbosity=error; }
vm() { tpus tpu-vm "$@"; }
request() { tpus queued-resources "$@"; }

# Prints the state of the VM, or of the request for it: $2 of what `$1 describe` says; NONE where there is none.
state() {
    local said
    if said=$("$1" describe "$name" --format="value($2)" 2>"$folder/gcloud.log"); then
        echo "${said:-UNKNOWN}"
    elif grep -q NOT_FOUND "$folder/gcloud.log"; then
        echo NONE
    else
        fail "gcloud does not answer: $(grep -m 1 ERROR "$folder/gcloud.log" || tail -n 1 "$folder/gcloud.log")"
    fi
}

create() {
    if [ ${#preflight[@]} -gt 0 ]; then
        say "compiling for a $type before anything is paid for"
        "${preflight[@]}" || fail "preflight ended with exit code $?; nothing was created" 1
    fi
    say "creating $name, a $type in $zone"
    if [ "$queued" ]; then
        request create "$name" --node-id="$name" --accelerator-type="$type" --runtime-version="$version" \
            --async ${options[@]+"${options[@]}"}
    else
        vm create "$name" --accelerator-type="$type" --version="$version" ${options[@]+"${options[@]}"}
    fi || fail "$name was not created; gcloud's reason stands above" 1
}

delete() {
    say "deleting $name"
    if [ "$queued" ]; then request delete "$name" --force; else vm delete "$name"; fi
}

# Waits until the VM is READY. One that is not, and will not become READY, is deleted and made anew.
make_ready() {
    local now before=
    while true; do
        now=$(state vm state) || exit
        if [ "$now" = NONE ] && [ "$queued" ]; then now=$(state request state.state) || exit; fi
        [ "$now" = "$before" ] || say "$name: $now"
        before=$now
        case $now in
        READY) return ;;
        NONE) create ;;
        STOPPED) vm start "$name" || exit ;;
        PREEMPTED | TERMINATED | FAILED | SUSPENDED) delete || exit ;;
        *) sleep "$pause" ;;
        esac
    done
}

# The workers in groups of eight, a line each: sshd refuses many connections at once.
groups_of_workers() { seq 0 $((hosts - 1)) | paste -s -d ',,,,,,,\n' -; }

on_all() {
    local group
    for group in $(groups_of_workers); do
        vm ssh "$name" --worker="$group" --command="$1" || return
    done
}

copy_to_all() {
    local group
    for group in $(groups_of_workers); do
        vm scp "$@" "$name:$there/" --worker="$group" || return
    done
}

# How the job is: none on some host, running on some, or else the largest exit code; "unknown" without a connection.
status() {
    local said
    said=$(on_all "if [ -f $there/worker.sh ]; then bash $there/worker.sh status $job; else echo none; fi") ||
        said=unknown
    case $said in
    *unknown*) echo unknown ;;
    *none*) echo none ;;
    *running*) echo running ;;
    *) sort -k 2 -n <<<"$said" | tail -n 1 ;;
    esac
}

# Makes the folder on the hosts. Another job that runs there is left alone.
claim() {
    # shellcheck disable=SC2016 # expanded there
    local other='if kill -0 $(cat pid) 2>/dev/null && [ "$(cat started)" != JOB ]; then exit 17; fi'
    on_all "mkdir -p $there; cd $there; ${other/JOB/$job}" 2>/dev/null
}

# Copies the code as git knows it, with the changes of tracked files, installs and starts.
start() {
    local tree
    tree=$(git stash create) || return
    say "copying and installing"
    git archive --format=tar.gz --output="$folder/code.tar.gz" "${tree:-HEAD}" &&
        claim &&
        copy_to_all "$folder/code.tar.gz" "$folder/worker.sh" &&
        on_all "bash $there/worker.sh install" &&
        on_all "bash $there/worker.sh start" &&
        : >"$folder/log"
}

# Prints what is new in the log of worker 0, and keeps it.
follow() {
    vm ssh "$name" --worker=0 --command="bash $there/worker.sh follow $(($(wc -c <"$folder/log")))" |
        tee -a "$folder/log" || sleep "$pause"
}

# The last act: the folder of the run comes here, and the VM goes.
finish() {
    say "the job ended with exit code $1"
    follow
    if [ "$(vm ssh "$name" --worker=0 --command="if [ ! -e $remote ]; then echo none; fi")" = none ]; then
        say "it has left no $workdir"
    else
        say "fetching $workdir"
        mkdir -p "$(dirname "$fetched")"
        vm scp --recurse --worker=0 "$name:$remote" "$(dirname "$fetched")/" ||
            fail "$workdir could not be fetched; $name is still there" 1
    fi
    if [ "$keep" ]; then
        on_all "bash $there/worker.sh forget" || true
    else
        delete || fail "$name could not be deleted and is still paid for; gcloud's reason stands above" 1
    fi
    exit "$1"
}

gcloud version >/dev/null 2>&1 || fail "gcloud does not run; install the Google Cloud SDK anew"
[ "$project" ] || project=$(gcloud config get project 2>/dev/null) || true
[ "$project" ] || fail "gcloud knows no project; name one, or: gcloud config set project PROJECT"
[ "$(gcloud auth list --filter=status:ACTIVE --format='value(account)' 2>/dev/null)" ] ||
    fail "gcloud knows no account; first: gcloud auth login"
trap 'say "the job goes on; the same command takes it up again"; exit 130' INT HUP
touch "$folder/log"
failures=0
while true; do
    make_ready
    now=$(status)
    case $now in
    running) follow ;;
    "exit 75")
        say "the job was told to end, and is saved; it is started again"
        on_all "bash $there/worker.sh forget" || true
        sleep "$pause"
        ;;
    exit*) finish "${now#exit }" ;;
    none)
        if start; then
            failures=0
        else
            [ $? -ne 17 ] || fail "another job is running on $name; wait for it, or give this one another name"
            failures=$((failures + 1))
            [ $failures -lt 3 ] || fail "the hosts cannot be prepared; the reason stands above; $name is still there" 1
            sleep "$pause"
        fi
        ;;
    *) sleep "$pause" ;; # the connection broke
    esac
done
