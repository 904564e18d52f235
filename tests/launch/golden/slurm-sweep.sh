#!/bin/bash
# Job search-1122-101500-ab12cd: written by `headway submit sweep`, sent with `sbatch script.sh`.
#SBATCH --job-name=search-1122-101500-ab12cd
#SBATCH --comment='headway search'
#SBATCH --chdir=/shared/runs/.jobs/gpt
#SBATCH --output=/shared/runs/.jobs/gpt/task-%a.log
#SBATCH --open-mode=append
#SBATCH --array=0-3
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --signal=B:USR1@120
#SBATCH --requeue

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
if [ "$SLURM_NNODES" -ne 1 ]; then
  echo "headway: asked for 1 nodes, and Slurm gave $SLURM_NNODES" >&2
  echo 2 >"task-$task.exit"
  exit 2
fi

export HEADWAY_JOB_DIR=/shared/runs/.jobs/gpt
export HEADWAY_JOB_ID=search-1122-101500-ab12cd
export MASTER_ADDR=$(hostname) MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))

# The machines of a sweep are tasks of an array: the first is Ray's head and searches, the others join it
# whenever they start, and stay until it is done. Ray takes commands from whoever has the token.
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$PWD/ray-token
ray=(ray start --block --disable-usage-stats --num-cpus="$SLURM_CPUS_ON_NODE")
# A folder of its own: what Ray leaves in /tmp/ray of a head that is gone misleads others on the machine.
scratch=/tmp/headway-ray-"$SLURM_ARRAY_JOB_ID"
if [ "$task" -gt 0 ]; then
  trap 'scontrol requeue "$SLURM_JOB_ID"; exit 143' USR1
  while [ ! -f task-0.exit ]; do
    if [ -s ray-head ]; then
      "${ray[@]}" --address="$(cat ray-head)" &
      node=$!
      while [ ! -f task-0.exit ] && kill -0 "$node" 2>/dev/null; do sleep 2; done
      kill "$node" 2>/dev/null
      wait "$node"
    fi
    sleep 2
  done
  rm -rf "$scratch"
  exit 0
fi
[ -s ray-token ] || head -c 32 /dev/urandom | sha256sum | cut -d ' ' -f 1 >ray-token
"${ray[@]}" --head --port="$MASTER_PORT" --include-dashboard=false --temp-dir="$scratch" &
head=$!
until (exec 3<>"/dev/tcp/$MASTER_ADDR/$MASTER_PORT") 2>/dev/null; do
  kill -0 "$head" 2>/dev/null || { echo 1 >task-0.exit; exit 1; }
  sleep 1
done
echo "$MASTER_ADDR:$MASTER_PORT" >ray-head
trap 'rm -f ray-head; kill "$head"; wait "$head"; rm -rf "$scratch"' EXIT

case $task in
  0) command=(headway sweep /shared/runs/.jobs/gpt/recipe.yaml --runs /shared/runs --name search --resume auto --address "$MASTER_ADDR:$MASTER_PORT") ;;
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
