"""What several tests need: scenes, commands in processes, faults, a browser, a Slurm."""
