"""Writes the sbatch script of a job: what a person would have written, and can read and send by hand.

One `srun headway fit` a node; it starts that node's ranks itself, so that the number of Slurm's tasks and that of GPUs
cannot disagree. The batch shell hears the warning before the time limit, passes it on, and puts the job back into the
queue once the run has saved where it is.
"""

from __future__ import annotations

import shlex
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from headway.launch.base import Job, seconds

if TYPE_CHECKING:
    from headway.launch.slurm import Config

SCRIPT = "script.sh"


def sbatch_script(profile: Config, job: Job, *, folder: str, runs: str) -> str:
    """Returns the script.

    Args:
        profile: where the job runs.
        job: what it does.
        folder: the job's folder as the cluster sees it.
        runs: the folder of run folders, seen likewise.
    """
    nodes = _nodes(profile, job)
    return "\n".join(
        [
            "#!/bin/bash",
            f"# Job {job.id}: written by `headway submit {job.verb}`, sent with `sbatch {SCRIPT}`.",
            *(f"#SBATCH {option}" for option in _options(profile, job, folder)),
            "",
            "set -u",
            "umask 077",
            f"cd {shlex.quote(folder)} || exit 1",
            "task=${SLURM_ARRAY_TASK_ID:-0}",
            'rm -f "task-$task.exit"',
            "restarts=${SLURM_RESTART_COUNT:-0}",
            f'if [ "$restarts" -gt {profile.max_requeues} ]; then',
            f'  echo "headway: requeued more than max_requeues: {profile.max_requeues} times; given up" >&2',
            '  echo 143 >"task-$task.exit"',
            "  exit 143",
            "fi",
            f'if [ "$SLURM_NNODES" -ne {nodes} ]; then',
            f'  echo "headway: asked for {nodes} nodes, and Slurm gave $SLURM_NNODES" >&2',
            '  echo 2 >"task-$task.exit"',
            "  exit 2",
            "fi",
            "",
            *_environment(profile, job, folder),
            "",
            *(_SWEEP if job.workers else []),
            *_commands(profile, job, folder, runs),
            "",
            *_STEP,
            "",
        ]
    )


def _nodes(profile: Config, job: Job) -> int:
    """Returns the machines of one task: those of a sweep are tasks of their own."""
    return 1 if job.workers else profile.nodes


def _options(profile: Config, job: Job, folder: str) -> list[str]:
    tasks = job.workers + 1 if job.workers else len(job.names)
    log = "task-%a.log" if tasks > 1 else "task-0.log"
    several = f"--array=0-{tasks - 1}" + (f"%{profile.array_limit}" if profile.array_limit else "")
    limit_s = seconds(profile.time_limit) if profile.time_limit else None
    gpus = f"{profile.gpu_type}:{profile.gpus_per_node}" if profile.gpu_type else str(profile.gpus_per_node)
    options = {
        f"--job-name={job.id}": True,
        f"--comment={shlex.quote(f'headway {job.group}')}": bool(job.group),
        f"--chdir={shlex.quote(folder)}": True,
        f"--output={shlex.quote(f'{folder}/{log}')}": True,
        "--open-mode=append": True,
        several: tasks > 1,
        f"--nodes={_nodes(profile, job)}": True,
        "--ntasks-per-node=1": True,
        f"--gpus-per-node={gpus}": profile.gpus_per_node > 0,
        f"--cpus-per-task={profile.cpus_per_node}": profile.cpus_per_node is not None,
        f"--mem={(profile.memory_gb or 0) * 1000:.0f}M": profile.memory_gb is not None,
        f"--time={_clock(limit_s or 0)}": limit_s is not None,
        f"--signal=B:USR1@{profile.grace_s}": True,
        "--requeue": True,
        f"--partition={profile.partition}": profile.partition is not None,
        f"--account={profile.account}": profile.account is not None,
        f"--qos={profile.qos}": profile.qos is not None,
        f"--constraint={shlex.quote(profile.constraint or '')}": profile.constraint is not None,
        "--exclusive": profile.exclusive,
    }
    return [option for option, wanted in options.items() if wanted]


def _clock(whole_s: int) -> str:
    """Returns a time as Slurm writes it: days-hours:minutes:seconds."""
    minutes, rest_s = divmod(whole_s, 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    return f"{days}-{hours:02}:{minutes:02}:{rest_s:02}" if days else f"{hours:02}:{minutes:02}:{rest_s:02}"


def _environment(profile: Config, job: Job, folder: str) -> list[str]:
    variables = profile.variables(job, folder)
    site = [*(f"module load {shlex.quote(module)}" for module in profile.modules), *profile.setup]
    return [
        # What a site brings along does not always name its variables first.
        *(["set +u", *site, "set -u"] if site else []),
        *(f"export {name}={shlex.quote(value)}" for name, value in sorted(variables.items())),
        # The batch shell is on the first node; jobs that share it have ports of their own.
        "export MASTER_ADDR=$(hostname) MASTER_PORT=$((20000 + SLURM_JOB_ID % 20000))",
        # Since Slurm 22.05 srun does not take it from sbatch.
        *(["export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK"] if profile.cpus_per_node else []),
    ]


def _commands(profile: Config, job: Job, folder: str, runs: str) -> list[str]:
    """Returns the definition of `command`, the line that srun starts, for each task of an array."""
    cluster = ' --address "$MASTER_ADDR:$MASTER_PORT"' if job.workers else ""
    lines = [
        f"  {task}) command=(headway {shlex.join(job.arguments(task, folder=folder, runs=runs))}{cluster}) ;;"
        for task in range(len(job.names))
    ]
    return [
        "case $task in",
        *lines,
        "esac",
        f"launch=(srun --nodes=$SLURM_NNODES --kill-on-bad-exit=1{_container(profile, folder, runs)})",
    ]


def _container(profile: Config, folder: str, runs: str) -> str:
    """Returns what goes between srun's own options and the command."""
    mounts = [f"{path}:{path}" for path in dict.fromkeys([folder, runs])] + list(profile.mounts)
    if profile.container == "pyxis":
        image = shlex.quote(profile.image or "")
        workdir = shlex.quote(f"--container-workdir={PurePosixPath(folder)}")
        return f" --container-image={image} {shlex.quote('--container-mounts=' + ','.join(mounts))} {workdir}"
    if profile.container == "apptainer":
        binds = " ".join(f"--bind {shlex.quote(mount)}" for mount in mounts)
        nvidia = " --nv" if profile.gpus_per_node else ""
        return f" apptainer exec{nvidia} {binds} --pwd {shlex.quote(folder)} {shlex.quote(profile.image or '')}"
    return ""


_SWEEP = [
    "# The machines of a sweep are tasks of an array: the first is Ray's head and searches, the others join it",
    "# whenever they start, and stay until it is done. Ray takes commands from whoever has the token.",
    "export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$PWD/ray-token",
    'ray=(ray start --block --disable-usage-stats --num-cpus="$SLURM_CPUS_ON_NODE")',
    "# A folder of its own: what Ray leaves in /tmp/ray of a head that is gone misleads others on the machine.",
    'scratch=/tmp/headway-ray-"$SLURM_ARRAY_JOB_ID"',
    'if [ "$task" -gt 0 ]; then',
    "  trap 'scontrol requeue \"$SLURM_JOB_ID\"; exit 143' USR1",
    "  while [ ! -f task-0.exit ]; do",
    "    if [ -s ray-head ]; then",
    '      "${ray[@]}" --address="$(cat ray-head)" &',
    "      node=$!",
    '      while [ ! -f task-0.exit ] && kill -0 "$node" 2>/dev/null; do sleep 2; done',
    '      kill "$node" 2>/dev/null',
    '      wait "$node"',
    "    fi",
    "    sleep 2",
    "  done",
    '  rm -rf "$scratch"',
    "  exit 0",
    "fi",
    "[ -s ray-token ] || head -c 32 /dev/urandom | sha256sum | cut -d ' ' -f 1 >ray-token",
    '"${ray[@]}" --head --port="$MASTER_PORT" --include-dashboard=false --temp-dir="$scratch" &',
    "head=$!",
    'until (exec 3<>"/dev/tcp/$MASTER_ADDR/$MASTER_PORT") 2>/dev/null; do',
    '  kill -0 "$head" 2>/dev/null || { echo 1 >task-0.exit; exit 1; }',
    "  sleep 1",
    "done",
    'echo "$MASTER_ADDR:$MASTER_PORT" >ray-head',
    """trap 'rm -f ray-head; kill "$head"; wait "$head"; rm -rf "$scratch"' EXIT""",
    "",
]

_STEP = [
    "# A warning comes before the time limit, and where the site sends one before a preemption: the run saves and",
    "# ends with 143.",
    "step=",
    'trap \'[ -n "$step" ] && kill -USR1 "$step"\' USR1',
    '"${launch[@]}" "${command[@]}" &',
    "step=$!",
    "while :; do",
    '  wait "$step"',
    "  code=$?",
    '  [ "$code" -eq 138 ] && kill -0 "$step" 2>/dev/null || break  # the trap cuts a wait short',
    "done",
    '[ "$code" -ne 138 ] || { wait "$step"; code=$?; }  # it ended while the trap ran, or of the signal itself',
    "",
    "# Saved and told to go: back into the queue, unless it was cancelled. Slurm itself requeues what it preempts or",
    "# loses a node of.",
    'if [ "$code" -eq 143 ] || [ "$code" -eq 138 ]; then  # 138: told before it could listen',
    '  case $(scontrol show job --oneliner "$SLURM_JOB_ID") in',
    "    *JobState=CANCELLED*) ;;",
    "    *JobState=*)",
    '      scontrol requeue "$SLURM_JOB_ID" && exit "$code"',
    "      ;;",
    '    *) echo "headway: scontrol is not here; the position is saved, and headway jobs retry goes on" >&2 ;;',
    "  esac",
    "fi",
    'echo "$code" >"task-$task.exit"',
    'exit "$code"',
]
