#!/bin/bash
# Trains a small sweep in this process and through a Slurm of one node that is started for it here, kills a job in
# the middle, and compares. Needs root and Debian's packages: apt-get install slurm-wlm munge
set -euo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
python=$root/.venv/bin/python
for tool in munged slurmctld slurmd sbatch srun squeue; do
    PATH=$PATH:/usr/sbin command -v "$tool" >/dev/null || { echo "$tool is missing: apt-get install slurm-wlm munge"; exit 2; }
done
[ "$(id -u)" = 0 ] || { echo "slurmd starts jobs as root only: run this as root, in a container or a machine of its own"; exit 2; }
export PATH=$PATH:/usr/sbin

place=$(mktemp -d /tmp/mlpexp-slurm.XXXXXX)
pids=()
finish() {
    for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
    wait 2>/dev/null || true
    if [ "${KEEP:-}" ]; then echo "kept: $place"; else rm -rf "$place"; fi
}
trap finish EXIT

# munge refuses sockets and keys in places that others can write to
mkdir -m 700 "$place/munge"
head -c 128 /dev/urandom >"$place/munge/key" && chmod 600 "$place/munge/key"
chmod 755 "$place" "$place/munge"
munged --foreground --force --key-file="$place/munge/key" --socket="$place/munge/socket" \
    --pid-file="$place/munge/pid" --seed-file="$place/munge/seed" --log-file="$place/munge/log" &>"$place/munge.out" &
pids+=($!)

mkdir "$place/state" "$place/spool"
cores=$(nproc)
cat >"$place/slurm.conf" <<CONF
ClusterName=mlpexp
SlurmctldHost=localhost(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$place/munge/socket
CredType=cred/munge
SlurmctldPort=16817
SlurmdPort=16818
StateSaveLocation=$place/state
SlurmdSpoolDir=$place/spool
SlurmctldPidFile=$place/slurmctld.pid
SlurmdPidFile=$place/slurmd.pid
SlurmctldLogFile=$place/slurmctld.log
SlurmdLogFile=$place/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerParameters=sched_interval=1,batch_sched_delay=0
ReturnToService=2
NodeName=localhost NodeAddr=127.0.0.1 CPUs=$cores State=UNKNOWN
PartitionName=debug Nodes=localhost Default=YES MaxTime=60 State=UP
CONF
export SLURM_CONF=$place/slurm.conf
slurmctld -D -c &>"$place/slurmctld.out" &
pids+=($!)
slurmd -D -N localhost &>"$place/slurmd.out" &
pids+=($!)
for _ in $(seq 60); do
    [ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ] && break
    sleep 0.5
done
sinfo || { tail -n 20 "$place"/slurm*.out "$place"/slurm*.log; exit 1; }

cd "$place"
export OMP_NUM_THREADS=1
grid=(-m 'seed=range(8)' model.depth=1,2 model.width=16 trainer.max_epochs="${EPOCHS:-30}")
slurm=(hydra.launcher.backend=submitit hydra.launcher.workers=2 +hydra.launcher.slurm.slurm_partition=debug
    +hydra.launcher.slurm.timeout_min=10)
echo "== in this process"
"$python" "$root/scripts/train.py" "${grid[@]}" name=here
echo "== through Slurm"
"$python" "$root/scripts/train.py" "${grid[@]}" name=slurm "${slurm[@]}"
echo "== through Slurm, and a job is killed"
"$python" "$root/tests/slurm/killed.py" multirun/killed "$python" "$root/scripts/train.py" "${grid[@]}" name=killed "${slurm[@]}"
"$python" "$root/tests/slurm/same.py" multirun/here multirun/slurm multirun/killed
[ -z "$(squeue --noheader)" ] || { echo "jobs are left in the queue:"; squeue; exit 1; }
