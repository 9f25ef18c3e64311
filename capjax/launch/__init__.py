"""Starting one run on many machines: SLURM, GKE by xpk, or a plain list of hosts."""
