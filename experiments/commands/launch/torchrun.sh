#!/usr/bin/env bash
# Trains a paper on every GPU of this machine, or of several: run the same line on each of them.
#
#   experiments/commands/launch/torchrun.sh PAPER [CONFIG [ARGS...]]
#
#   PAPER    a folder of experiments/
#   CONFIG   the name of one of its configurations, or a YAML file (default: paper)
#   ARGS     further arguments of `python -m experiments fit`
#
# From the environment:
#   NODES=1                how many machines
#   NODE_RANK=0            this one among them, from 0
#   MASTER_ADDR=127.0.0.1  machine 0, as the others reach it; wanted where there are several
#   MASTER_PORT=29500      a free port of machine 0
#   PROCESSES=             processes on each machine (default: its GPUs, or one without any)
set -euo pipefail

fail() {
  echo "torchrun.sh: $*" >&2
  exit 2
}

whole() {
  [[ "$2" =~ ^(0|[1-9][0-9]{0,5})$ ]] || fail "$1=$2: expected a whole number"
  (("$2" >= "$3")) || fail "$1=$2: expected at least $3"
}

gpus() {
  nvidia-smi --list-gpus 2>/dev/null | grep -c '^GPU' || true
}

[[ $# -ge 1 ]] || fail "which paper? torchrun.sh PAPER [CONFIG [ARGS...]]"
paper=$1
config=${2:-paper}
shift "$(($# < 2 ? $# : 2))"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
[[ -f $config ]] || config=$root/experiments/$paper/$config.yaml
[[ -f $config ]] || fail "no configuration $config"
torchrun=${TORCHRUN:-$root/.venv/bin/torchrun}
[[ -x $torchrun ]] || fail "no $torchrun: \`make setup\` first"

nodes=${NODES:-1}
rank=${NODE_RANK:-0}
port=${MASTER_PORT:-29500}
processes=${PROCESSES:-$(gpus)}
[[ $processes != 0 ]] || processes=1
whole NODES "$nodes" 1
whole NODE_RANK "$rank" 0
whole MASTER_PORT "$port" 1
whole PROCESSES "$processes" 1
((rank < nodes)) || fail "NODE_RANK=$rank: the machines are numbered from 0 to $((nodes - 1))"
[[ $nodes == 1 || -n ${MASTER_ADDR:-} ]] || fail "MASTER_ADDR is missing: the address of machine 0"

exec "$torchrun" --nnodes "$nodes" --node-rank "$rank" --nproc-per-node "$processes" \
  --master-addr "${MASTER_ADDR:-127.0.0.1}" --master-port "$port" \
  -m experiments fit --config "$config" --trainer.devices="$processes" --trainer.num_nodes="$nodes" "$@"
