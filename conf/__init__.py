"""What can be chosen by name: one folder a group, one file an option. Defaults stand in the settings' records."""
