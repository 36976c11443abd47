#!/usr/bin/env bash
# A stand-in for gcloud: the folder FAKE holds the states of a VM and of a request (a line each, taken in turn, the last
# stays), the homes of its workers, and every call. `broken` has the number of connections that fail next.
set -u
echo "$*" >>"$FAKE/calls"
not_found() {
    echo "ERROR: (gcloud.compute.tpus) NOT_FOUND: Resource was not found" >&2
    exit 1
}
next() { # prints the first line of a file, and removes it if there are others
    [ -f "$1" ] || not_found
    head -n 1 "$1"
    if [ "$(wc -l <"$1")" -gt 1 ]; then sed -i 1d "$1"; fi
}
make_vm() {
    for worker in $(seq 0 $((WORKERS - 1))); do mkdir -p "$FAKE/workers/$worker"; done
    echo READY >"$FAKE/vm"
}
case "$1 ${2-}" in
"config get") cat "$FAKE/project" 2>/dev/null || exit 1 ;;
"auth list") cat "$FAKE/account" 2>/dev/null ;;
esac
[ "$1" = version ] && [ -f "$FAKE/dead" ] && exit 1
[ "$1" = compute ] || exit 0
kind=$3 verb=$4
shift 4
workers=0
words=()
command=
for word in "$@"; do
    case $word in
    --worker=*) workers=${word#*=} ;;
    --command=*) command=${word#*=} ;;
    --*) ;;
    *) words+=("$word") ;;
    esac
done
place() { case $1 in *:/*) echo "${1#*:}" ;; *:*) echo "$FAKE/workers/$2/${1#*:}" ;; *) echo "$1" ;; esac }
case "$kind $verb" in
*describe) [ ! -f "$FAKE/offline" ] || { echo "ERROR: no network" >&2; exit 1; } ;;&
"tpu-vm describe") next "$FAKE/vm" ;;
"queued-resources describe")
    state=$(next "$FAKE/request") || not_found
    [ "$state" != ACTIVE ] || make_vm
    echo "$state"
    ;;
"tpu-vm create")
    [ ! -f "$FAKE/full" ] || { echo "ERROR: no more capacity in the zone" >&2; exit 1; }
    make_vm
    ;;
"queued-resources create") printf 'WAITING_FOR_RESOURCES\nPROVISIONING\nACTIVE\n' >"$FAKE/request" ;;
*delete) rm -rf "$FAKE/vm" "$FAKE/request" "$FAKE/workers" ;;
"tpu-vm ssh")
    left=$(cat "$FAKE/broken" 2>/dev/null || echo 0)
    if [ "$left" -gt 0 ]; then
        echo $((left - 1)) >"$FAKE/broken"
        exit 255
    fi
    code=0
    for worker in ${workers//,/ }; do
        (cd "$FAKE/workers/$worker" && HOME=$PWD exec bash -c "$command") || code=$?
    done
    exit $code
    ;;
"tpu-vm scp")
    for worker in ${workers//,/ }; do
        last=$(place "${words[-1]}" "$worker")
        for word in "${words[@]:0:${#words[@]}-1}"; do cp -r "$(place "$word" "$worker")" "$last" || exit 1; done
    done
    ;;
esac
