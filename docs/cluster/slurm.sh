#!/bin/bash
# Four nodes, a worker on each. sbatch slurm.sh
#
# Needed: a folder that all nodes see, with .venv and the pictures in it; submit from there.

#SBATCH --job-name=tfsft
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=8:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=flowers.log

# --signal: two minutes before the time is over, every worker saves its state and ends with 143.
# --requeue: Slurm starts the job again when a node fails.

. .venv/bin/activate
srun --kill-on-bad-exit=1 \
  tfsft run image_cls --data flowers/ --strategy multiworker --run-dir runs/flowers --go-on
code=$?

# Out of time, or a worker died: the same again goes on from the last checkpoint. 2 is a wrong option.
if [ $code -ne 0 ] && [ $code -ne 2 ] && [ "${SLURM_RESTART_COUNT:-0}" -lt 5 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
