#!/usr/bin/env bash
# launch/test.sh [--newest] [--slow] [PYTEST ARGUMENTS]: makes the environment, checks style and types, builds the
# documentation (a broken link is an error), runs the tests.
# --slow runs the tests that take minutes, too. With arguments for pytest, only pytest is run.
# --newest takes Python 3.12 or newer and the versions of constraints-newest.txt, in an environment of its own.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

if [ "${1-}" = --newest ]; then
    VENV=$ROOT/.venv-newest CONSTRAINTS=$ROOT/constraints-newest.txt MINOR=12
    shift
fi
markers=()
if [ "${1-}" = --slow ]; then
    markers=(-m "slow or not slow")
    shift
fi
export JAXFORMER_EXTRAS=${JAXFORMER_EXTRAS-} # the tests run on the CPU
ensure_environment test
cd "$ROOT"
if [ $# -eq 0 ]; then
    "$VENV/bin/python" -m ruff format --check .
    "$VENV/bin/python" -m ruff check .
    "$VENV/bin/python" -m mypy &
    NO_MKDOCS_2_WARNING=1 "$VENV/bin/python" -m mkdocs build --strict --quiet --site-dir "$ROOT/.site"
    wait $! # for the types, which are checked meanwhile
fi
exec "$VENV/bin/python" -m pytest -n 2 --dist worksteal ${markers[@]+"${markers[@]}"} "$@"
