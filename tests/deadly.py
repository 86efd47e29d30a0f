"""A module that ends the process that imports it, as a library in C may."""

import os

if os.environ.get("OPTBENCH_IS_DEADLY"):
    os._exit(5)


class Task:
    """Never made."""
