#!/bin/bash
# One study in one Slurm allocation: sbatch cluster/slurm/mixed-preemptible.sh
# Ray's head on the first node, a worker on each other one, and `raysweep run`, which continues where the store says.
# Shortly before the time limit the stages save, and the job is queued again; the same happens when it is preempted.
#SBATCH --job-name=raysweep
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --time=24:00:00
#SBATCH --signal=B:USR1@300
#SBATCH --requeue
#SBATCH --no-kill
#SBATCH --partition=cpu
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH hetjob
#SBATCH --partition=gpu-preempt
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --gpus-per-node=1

set -euo pipefail
umask 077

study=${1:-search_spaces/quickstart.yaml}
export RAYSWEEP_STORE=/shared/raysweep
source /shared/raysweep/venv/bin/activate

# What only this user's processes may read, on a folder that all nodes share: the token of this job's Ray.
private=$HOME/.raysweep/job-$SLURM_JOB_ID
mkdir -p "$private"
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=$private/token RAY_USAGE_STATS_ENABLED=0
export RAYSWEEP_GRACE_S=120 # seconds that saving may take
unset RAY_AUTH_TOKEN RAY_ADDRESS
python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH"

# Jobs may share a node: the port and Ray's folder are this job's own.
port=$((20000 + SLURM_JOB_ID % 20000))
folder=/tmp/raysweep-$SLURM_JOB_ID
mkdir -p "$folder" # umask 077
[[ -O $folder ]] || { echo "$folder belongs to somebody else" >&2; exit 1; }
head=$(scontrol show hostnames "${SLURM_JOB_NODELIST_HET_GROUP_0:-$SLURM_JOB_NODELIST}" | head -n 1)
head_ip=${RAYSWEEP_HEAD_IP:-$(hostname -I | cut -d ' ' -f 1)}
steps=()

end() {
  for step in "${steps[@]}"; do kill -TERM "$step" 2>/dev/null || true; done
  wait || true
  rm -rf "$private" "$folder"
}
trap end EXIT

# start SRUN_OPTION... -- RAY_OPTION...: one Ray process per node, with what Slurm gave that node.
start() {
  local options=()
  while [[ $1 != -- ]]; do options+=("$1"); shift; done
  shift
  srun --overlap --kill-on-bad-exit=0 --ntasks-per-node=1 --cpus-per-task=8 "${options[@]}" bash -c \
    'exec ray start --block --num-cpus=8 --num-gpus="${SLURM_GPUS_ON_NODE:-0}" "$@"' ray "$@" &
  steps+=($!)
}

start --nodes=1 --ntasks=1 --nodelist="$head" --het-group=0 -- --head --node-ip-address="$head_ip" --port="$port" \
  --ray-client-server-port="$((port + 1))" --include-dashboard=false --temp-dir="$folder" --disable-usage-stats
for _ in $(seq 300); do
  (exec 3<>"/dev/tcp/$head_ip/$port") 2>/dev/null && break
  kill -0 "${steps[0]}" || exit 1
  sleep 1
done
start --nodes=8 --ntasks=8 --het-group=1 -- --address="$head_ip:$port"

raysweep run "$study" --address "$head_ip:$port" &
driver=$!

again=
stop_soon() { # SIGTERM: stages save at their next optimiser step, and nothing new starts
  echo "$(date -Is) $1: saving" >&2
  kill -TERM "$driver" 2>/dev/null || true
}
trap 'again=yes; stop_soon "time is nearly over"' USR1
trap 'stop_soon "preempted or cancelled"' TERM

status=0
while :; do # a signal ends `wait` early
  wait "$driver" && status=0 || status=$?
  kill -0 "$driver" 2>/dev/null || break
done
if [[ $again && $status -gt 1 ]]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
