"""One job on one scene: its blocks, what decides their bytes, resuming, summary, verification."""
