#!/usr/bin/env bash
# launch/local.sh VERB ...: runs `jaxformer VERB ...` on this machine, in an environment that it makes at first.
# environment.sh says which Python and which accelerator packages it takes, and how to choose others.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

ensure_environment
# Large pages for large arrays: train steps on a CPU take a fifth less time. (glibc from 2.35 on; ignored elsewhere.)
export GLIBC_TUNABLES=${GLIBC_TUNABLES-glibc.malloc.hugetlb=1}
exec "$VENV/bin/jaxformer" "$@"
