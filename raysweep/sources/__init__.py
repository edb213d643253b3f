"""Where an encoder comes from: architectures, weight files, snapshots."""
