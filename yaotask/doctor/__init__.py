"""What `yaotask doctor` finds: one file for each place where something may be wrong."""
