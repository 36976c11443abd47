# Each process has a supervisor, as srun starts them one by one. When its time is over, Slurm sends SIGTERM to them, here
# and there to this script, too: it waits for them.
trap : TERM
code=0
# That one process has left must not kill the others while they save.
srun --kill-on-bad-exit=0 --wait=300 ${SLURM_CPUS_PER_TASK:+--cpus-per-task="$SLURM_CPUS_PER_TASK"} \
    "${command[@]}" || code=$?
if [ "$code" -eq 75 ]; then # saved: the same job goes on later
    scontrol requeue "${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_}${SLURM_ARRAY_TASK_ID:-$SLURM_JOB_ID}"
fi
exit "$code"
