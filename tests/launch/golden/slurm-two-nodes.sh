#!/bin/bash
# Job gpt-1122-101500-ab12cd: written by `headway submit fit`, sent with `sbatch script.sh`.
#SBATCH --job-name=gpt-1122-101500-ab12cd
#SBATCH --comment='headway gpt'
#SBATCH --chdir=/shared/runs/.jobs/gpt
#SBATCH --output=/shared/runs/.jobs/gpt/task-0.log
#SBATCH --open-mode=append
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=12:00:00
#SBATCH --signal=B:USR1@120
#SBATCH --requeue
#SBATCH --partition=gpu

set -u
umask 077
cd /shared/runs/.jobs/gpt || exit 1
task=${SLURM_ARRAY_TASK_ID:-0}
rm -f "task-$task.exit"
restarts=${SLURM_RESTART_COUNT:-0}
if [ "$restarts" -gt 20 ]; then
  echo "headway: requeued more than max_requeues: 20 times; given up" >&2
  echo 143 >"task-$task.exit"
  exit 143
fi
if [ "$SLURM_NNODES" -ne 2 ]; then
  echo "headway: asked for 2 nodes, and Slurm gave $SLURM_NNODES" >&2
  echo 2 >"task-$task.exit"
  exit 2
fi

export HEADWAY_JOB_DIR=/shared/runs/.jobs/gpt
export HEADWAY_JOB_ID=gpt-1122-101500-ab12cd
export MASTER_ADDR=$(hostname) MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))
export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK

case $task in
  0) command=(headway fit /shared/runs/.jobs/gpt/recipe.yaml --runs /shared/runs --name gpt --resume auto) ;;
esac
launch=(srun --nodes=$SLURM_NNODES --kill-on-bad-exit=1)

# A warning comes before the time limit, and where the site sends one before a preemption: the run saves and
# ends with 143.
step=
trap '[ -n "$step" ] && kill -USR1 "$step"' USR1
"${launch[@]}" "${command[@]}" &
step=$!
while :; do
  wait "$step"
  code=$?
  [ "$code" -eq 138 ] && kill -0 "$step" 2>/dev/null || break  # the trap cuts a wait short
done
[ "$code" -ne 138 ] || { wait "$step"; code=$?; }  # it ended while the trap ran, or of the signal itself

# Saved and told to go: back into the queue, unless it was cancelled. Slurm itself requeues what it preempts or
# loses a node of.
if [ "$code" -eq 143 ] || [ "$code" -eq 138 ]; then  # 138: told before it could listen
  case $(scontrol show job --oneliner "$SLURM_JOB_ID") in
    *JobState=CANCELLED*) ;;
    *JobState=*)
      scontrol requeue "$SLURM_JOB_ID" && exit "$code"
      ;;
    *) echo "headway: scontrol is not here; the position is saved, and headway jobs retry goes on" >&2 ;;
  esac
fi
echo "$code" >"task-$task.exit"
exit "$code"
