#!/usr/bin/env bash
# benchmarks/gpu/run.sh OUT [--dry-run]: all that one NVIDIA GPU can answer in 12 minutes, most important first.
#
# Each part is a process of its own, bounded in time, so that one that fails or hangs costs the others nothing.
#   OUT/results.jsonl  figures, a line as each is measured, and one for each part
#   OUT/log.txt        all that the parts print
#   OUT/clocks.csv     clock, power, temperature and memory of the card, every 2 seconds
#   OUT/tables.md      tables of the results
# --dry-run takes every part's code on the CPU, with tiny shapes and torch.compile's backend "aot_eager".
# Variables: PYTHON, the interpreter (python3); SECONDS_IN_ALL (700); WHEELS, a folder with what wheels.txt names.
set -uo pipefail

[ $# -ge 1 ] || { echo "usage: benchmarks/gpu/run.sh OUT [--dry-run]" >&2; exit 2; }
case ${2-} in "" | --dry-run) ;; *) echo "$2: the only option is --dry-run" >&2; exit 2 ;; esac
mkdir -p "$1" || exit 2
OUT=$(cd "$1" && pwd) || exit 2
DRY=${2-}
PYTHON=${PYTHON-python3}
case $PYTHON in /*) ;; */*) PYTHON=$PWD/$PYTHON ;; esac
[ -z "${WHEELS-}" ] || WHEELS=$(cd "$WHEELS" && pwd) || exit 2
END=$((SECONDS + ${SECONDS_IN_ALL-700}))
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
: >"$OUT/results.jsonl"
: >"$OUT/log.txt"
export PYTHONPATH=$PWD${PYTHONPATH:+:$PYTHONPATH} PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false HF_HUB_OFFLINE=1
SCRATCH=$(mktemp -d) || exit 2
CLOCKS=
trap '[ -z "$CLOCKS" ] || kill "$CLOCKS" 2>/dev/null; rm -rf "$SCRATCH"' EXIT
export CUDA_VISIBLE_DEVICES=${CUDA_VISIBLE_DEVICES-0} # one card, as the peers take
export JAX_COMPILATION_CACHE_DIR=$SCRATCH/jax TORCHINDUCTOR_CACHE_DIR=$SCRATCH/inductor

# part NAME SECONDS COMMAND...: runs a command, at most so long, as long as there is time.
part() {
    local name=$1 limit=$2 left=$((END - SECONDS)) start=$SECONDS code
    shift 2
    [ -z "$DRY" ] || limit=$((limit * 5)) # a busy CPU compiles slowly
    [ "$limit" -le "$left" ] || limit=$left
    if [ "$limit" -lt 10 ]; then
        echo "{\"work\": \"part\", \"name\": \"$name\", \"exit\": 124, \"seconds\": 0}" >>"$OUT/results.jsonl"
        return 0
    fi
    printf '\n== %s, at most %s s: %s\n' "$name" "$limit" "$*" | tee -a "$OUT/log.txt"
    timeout --kill-after 5 "$limit" "$@" >>"$OUT/log.txt" 2>&1
    code=$?
    [ "$code" -ne 137 ] || code=124
    echo "{\"work\": \"part\", \"name\": \"$name\", \"exit\": $code, \"seconds\": $((SECONDS - start))}" >>"$OUT/results.jsonl"
    echo "   exit $code after $((SECONDS - start)) s"
    return "$code"
}

ON=(--device gpu --json "$OUT/results.jsonl")
OURS="--sides jaxformer" EAGER="--sides peer" COMPILED="--sides peer --compile inductor"
GPT="--shape gpt2 --peer plain --dtype bfloat16 --rounds 5 --steps 10"
IMAGES="--batch 128 --dtype bfloat16 --rounds 5 --steps 10 --channels-last"
VIT="--model vit-b16 $IMAGES" HYBRID="--model r50-vit-b16 $IMAGES"
WRITING="--dtype bfloat16 --static --batch 1 8 --rounds 3"
QUICK="" TESTS="-q" PLATFORMS=cuda,cpu
if [ -n "$DRY" ]; then
    ON=(--json "$OUT/results.jsonl")
    COMPILED="--sides peer --compile aot_eager"
    GPT="--quick --peer plain --dtype bfloat16"
    IMAGES="--quick --depth 1 --dtype bfloat16 --channels-last"
    VIT="--model vit-b16 $IMAGES" HYBRID="--model r26-vit-s32 $IMAGES"
    WRITING="--dtype bfloat16 --static --batch 2 --quick"
    QUICK="--quick" TESTS="-q -k test_dense" PLATFORMS=cpu
elif command -v nvidia-smi >/dev/null; then
    nvidia-smi >>"$OUT/log.txt" 2>&1
    nvidia-smi --query-gpu=timestamp,name,driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu,memory.used \
        --format=csv --loop=2 >"$OUT/clocks.csv" 2>&1 &
    CLOCKS=$!
fi
if [ -n "${WHEELS-}" ]; then
    part wheels 60 "$PYTHON" -m pip install --quiet --no-index --no-deps --no-compile --target "$SCRATCH/site" \
        --find-links "$WHEELS" --requirement benchmarks/gpu/wheels.txt
    export PYTHONPATH=$PYTHONPATH:$SCRATCH/site
fi

# Words are split on purpose: each variable is a list of options. Where PyTorch cannot compile, it is eager.
# shellcheck disable=SC2086
{
    part machine 90 "$PYTHON" benchmarks/gpu/machine.py "${ON[@]}"
    part "attention is right" 120 "$PYTHON" benchmarks/gpu/checks.py attention $QUICK "${ON[@]}"
    part "GPT-2, ours" 200 "$PYTHON" benchmarks/gpt_step.py $GPT $OURS "${ON[@]}"
    part "GPT-2, compiled PyTorch" 150 "$PYTHON" benchmarks/gpt_step.py $GPT $COMPILED "${ON[@]}" ||
        part "GPT-2, eager PyTorch" 60 "$PYTHON" benchmarks/gpt_step.py $GPT $EAGER "${ON[@]}"
    part "ViT-B/16, ours" 90 "$PYTHON" benchmarks/train_step.py $VIT $OURS "${ON[@]}"
    part "ViT-B/16, compiled timm" 90 "$PYTHON" benchmarks/train_step.py $VIT $COMPILED "${ON[@]}" ||
        part "ViT-B/16, eager timm" 60 "$PYTHON" benchmarks/train_step.py $VIT $EAGER "${ON[@]}"
    part "the step is right" 120 "$PYTHON" benchmarks/gpu/checks.py step $QUICK "${ON[@]}"
    part "generation, ours" 60 "$PYTHON" benchmarks/generation.py $WRITING $OURS "${ON[@]}"
    part "generation, transformers" 120 "$PYTHON" benchmarks/generation.py $WRITING $EAGER "${ON[@]}"
    part "R50+ViT-B/16, ours" 120 "$PYTHON" benchmarks/train_step.py $HYBRID $OURS "${ON[@]}"
    part "R50+ViT-B/16, compiled timm" 120 "$PYTHON" benchmarks/train_step.py $HYBRID $COMPILED "${ON[@]}" ||
        part "R50+ViT-B/16, eager timm" 60 "$PYTHON" benchmarks/train_step.py $HYBRID $EAGER "${ON[@]}"
    # In float32 without TensorFloat-32, for which the tests' tolerances are.
    part tests 120 env JAX_PLATFORMS=$PLATFORMS JAX_DEFAULT_MATMUL_PRECISION=highest "$PYTHON" -m pytest \
        -p no:cacheprovider -W default $TESTS tests/models/test_attention.py tests/models/test_dense.py \
        tests/models/test_norms.py tests/models/test_cache.py
    part "GPT-2 scanned, ours" 60 "$PYTHON" benchmarks/gpt_step.py $GPT --scan $OURS "${ON[@]}"
    if [ -z "$DRY" ]; then
        part "GPT-2 with 64 texts, ours" 90 "$PYTHON" benchmarks/gpt_step.py $GPT --batch 64 $OURS "${ON[@]}"
        part "GPT-2 with 64 texts, compiled PyTorch" 90 "$PYTHON" benchmarks/gpt_step.py $GPT --batch 64 $COMPILED "${ON[@]}"
    fi
}
"$PYTHON" benchmarks/gpu/tables.py "$OUT/results.jsonl" | tee "$OUT/tables.md"
