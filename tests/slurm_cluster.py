"""A real Slurm on this machine, for tests: one node with four cores and three GPUs to hand out, whatever is there."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "squeue", "scontrol", "scancel")
SECONDS_TO_START = 30.0
NUM_CORES = 4
NUM_GPUS = 3

# A requeued job waits for `cred_expire` seconds, 120 by default and 5 at least, and for the scheduler to look again.
CONF = """\
ClusterName=optbench
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmdParameters=config_overrides
SchedulerParameters=sched_interval=1,batch_sched_delay=0,bf_interval=1
KillWait=5
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
ReturnToService=2
GresTypes=gpu
NodeName={host} NodeAddr=127.0.0.1 CPUs={cores} Gres=gpu:{gpus} State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def missing() -> str | None:
    """Why there can be no cluster here; None where there can."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    absent = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    return f"no {', '.join(absent)} here: apt-get install slurm-wlm munge" if absent else None


@contextmanager
def cluster(folder: Path) -> Iterator[None]:
    """Slurm is there for the processes that are started meanwhile; its daemons are gone afterwards.

    Args:
        folder: for all that its daemons write.
    """
    for name in ("state", "spool"):
        (folder / name).mkdir()
    for number in range(NUM_GPUS):
        (folder / f"gpu{number}").symlink_to(os.devnull)  # Slurm wants a device
    host = socket.gethostname().partition(".")[0]
    gpus = f"Name=gpu File={folder}/gpu[0-{NUM_GPUS - 1}] Flags=nvidia_gpu_env\n"
    user = pwd.getpwuid(os.getuid()).pw_name
    conf = CONF.format(folder=folder, host=host, user=user, ports=_free_ports(2), cores=NUM_CORES, gpus=NUM_GPUS)
    (folder / "gres.conf").write_text(gpus)
    (folder / "slurm.conf").write_text(conf)
    (folder / "munge.key").write_bytes(os.urandom(128))
    (folder / "munge.key").chmod(0o600)
    before = {name: os.environ.get(name) for name in ("SLURM_CONF", "PATH")}
    os.environ["SLURM_CONF"] = str(folder / "slurm.conf")
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])
    with ExitStack() as daemons:
        daemons.callback(lambda: [_set(name, value) for name, value in before.items()])
        munge = [f"--{name}-file={folder}/munge.{name}" for name in ("key", "pid", "log", "seed")]
        _start(daemons, ["munged", "--force", f"--socket={folder}/munge.socket", *munge], pid=folder / "munge.pid")
        _start(daemons, ["slurmctld"], pid=folder / "slurmctld.pid")
        _start(daemons, ["slurmd"], pid=folder / "slurmd.pid")
        daemons.callback(lambda: [cancel_all(), wait_for(lambda: not queue(), seconds=20.0)])
        wait_for(lambda: _asked("sinfo", "--noheader", "--format=%T") == "idle", seconds=SECONDS_TO_START)
        yield


def queue() -> list[tuple[str, str]]:
    """The name and state of each task in Slurm's queue."""
    lines = _asked("squeue", "--noheader", "--array", "--format=%i %T").splitlines()
    return [(line.split()[0], line.split()[1]) for line in lines]


def signal_task(task: str, name: str) -> None:
    """Send a signal to all processes of a task, as Slurm does at the end of its time."""
    subprocess.run(["scancel", f"--signal={name}", task], check=True)


def cancel(task: str) -> None:
    """End a task, or a whole array."""
    subprocess.run(["scancel", task], check=True)


def release(job: str) -> None:
    """Let tasks start that were submitted to be held."""
    subprocess.run(["scontrol", "release", job], check=True)


def cancel_all() -> None:
    """End all tasks."""
    subprocess.run(["scancel", f"--user={os.getuid()}"], check=True)


def wait_for(condition: Callable[[], object], *, seconds: float = 180.0) -> None:
    """Until it holds.

    Raises:
        TimeoutError: it did not.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError
        time.sleep(0.05)


def _start(daemons: ExitStack, command: list[str], *, pid: Path) -> None:
    """Start a daemon, which writes the number of its process, and stop it at the end."""
    subprocess.run(command, check=True)
    wait_for(lambda: pid.exists() and pid.read_text().strip(), seconds=SECONDS_TO_START)
    number = int(pid.read_text())

    def stop() -> None:
        with suppress(ProcessLookupError):
            os.kill(number, 15)
            wait_for(lambda: not _runs(number), seconds=20.0)

    daemons.callback(stop)


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def _asked(*command: str) -> str:
    return subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout.strip()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(found.getsockname()[1]) for found in sockets]
    for found in sockets:
        found.close()
    return ports


def _set(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
