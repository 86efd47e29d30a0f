"""Tracking besides the store: a logger hears of each trial's measurements while its clock stands still."""

from optbench.loggers.csv import CsvLogger
from optbench.loggers.logger import Logger, NullLogger
from optbench.loggers.tensorboard import TensorBoardLogger
from optbench.loggers.tolerant import Tolerant
from optbench.loggers.wandb import WandbLogger

__all__ = ["CsvLogger", "Logger", "NullLogger", "TensorBoardLogger", "Tolerant", "WandbLogger"]
