"""optbench: a declarative benchmark suite for deep-learning optimizers."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optbench.loaded import load

__version__ = "0.1.0"
__all__ = ["__version__", "load"]


def __getattr__(name: str) -> Any:
    if name == "load":  # pandas is not there for those who only want the command line's help
        from optbench.loaded import load

        return load
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
