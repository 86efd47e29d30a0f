"""The tasks: data, model, loss and metrics. Installed as `optbench.tasks`; YAML names them by `_target_`."""
