"""Parts that the tasks with LoRA adapters share."""
