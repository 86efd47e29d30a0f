"""What is run: YAML alone. Installed as `optbench.conf`."""
