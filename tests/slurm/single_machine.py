"""A Slurm of this machine alone, with daemons, ports, keys and folders of its own, which goes when it is closed."""

import contextlib
import ctypes
import os
import pathlib
import pwd
import shutil
import signal
import socket
import subprocess
import time

PROGRAMS = ("munged", "mungekey", "slurmctld", "slurmd", "sbatch", "squeue", "scancel", "sinfo")
# The daemons lie where only root's PATH leads.
SEARCH = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


PR_SET_PDEATHSIG = 1  # linux/prctl.h


def end_with_parent():
    """Run in a daemon to be: that it does not stay where this program is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


class CannotRun(Exception):
    """Slurm cannot run here; says why."""


def free_ports(count):
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


class SingleMachineSlurm:
    """`environment` is what programs need to talk to it."""

    def __init__(self, folder, cpus=4):
        self.folder = pathlib.Path(folder)
        self.cpus = cpus
        self.user = self._user()
        self.daemons = []
        self.programs = {}
        for name in PROGRAMS:
            self.programs[name] = shutil.which(name, path=SEARCH)
            if self.programs[name] is None:
                raise CannotRun(f"'{name}' is not installed (Debian packages slurm-wlm and munge)")
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith(("SLURM_", "SBATCH_"))}
        self.environment.update(SLURM_CONF=str(self.folder / "slurm.conf"), PATH=SEARCH)

    @staticmethod
    def _user():
        try:
            return pwd.getpwuid(os.getuid()).pw_name
        except KeyError as error:
            raise CannotRun("the user who runs this has no name") from error

    def __enter__(self):
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_):
        self.close()

    def _start(self):
        for name in ("munge", "state", "spool"):
            (self.folder / name).mkdir(mode=0o700)
        self._start_munge()
        self._configure()
        self._start_daemon("slurmctld", "-D", "-f", self.folder / "slurm.conf")
        self._start_daemon("slurmd", "-D", "-N", "here", "-f", self.folder / "slurm.conf")
        self._wait_for("a node that takes jobs", lambda: "idle" in self.ask("sinfo", "--noheader", "--format=%t"))

    def _start_munge(self):
        key, at = self.folder / "munge.key", self.folder / "munge"
        self._call("mungekey", "--create", f"--keyfile={key}")
        # One that does not like the rights of folders above its socket would not start.
        self._start_daemon("munged", "--foreground", "--force", "--num-threads=2", f"--key-file={key}",
                           f"--socket={at / 'socket'}", f"--pid-file={at / 'pid'}", f"--log-file={at / 'log'}",
                           f"--seed-file={at / 'seed'}")
        self._wait_for("munge's socket", (at / "socket").exists)

    def _configure(self):
        controller, daemon = free_ports(2)
        lines = [
            "ClusterName=test", f"SlurmctldHost={socket.gethostname()}(127.0.0.1)", f"SlurmctldPort={controller}",
            f"SlurmUser={self.user}", f"SlurmdUser={self.user}", "AuthType=auth/munge", "CredType=cred/munge",
            f"AuthInfo=socket={self.folder / 'munge' / 'socket'}", "ProctrackType=proctrack/linuxproc",
            "TaskPlugin=task/none", "JobAcctGatherType=jobacct_gather/none", "AccountingStorageType=accounting_storage/none",
            "SelectType=select/cons_tres", "SelectTypeParameters=CR_CPU", "SchedulerType=sched/builtin",
            "SchedulerParameters=sched_interval=1,batch_sched_delay=0", "ReturnToService=2", "SlurmdParameters=config_overrides",
            "MpiDefault=none", "KillWait=2", "MessageTimeout=5", "InactiveLimit=0", "MinJobAge=2", "JobRequeue=0",
            f"StateSaveLocation={self.folder / 'state'}", f"SlurmdSpoolDir={self.folder / 'spool'}",
            f"SlurmctldPidFile={self.folder / 'slurmctld.pid'}", f"SlurmdPidFile={self.folder / 'slurmd.pid'}",
            f"NodeName=here NodeHostname={socket.gethostname()} NodeAddr=127.0.0.1 Port={daemon} CPUs={self.cpus} State=UNKNOWN",
            "PartitionName=all Nodes=here Default=YES MaxTime=INFINITE State=UP OverSubscribe=NO",
        ]
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")

    def _call(self, program, *arguments):
        ended = subprocess.run([self.programs[program], *map(str, arguments)], env=self.environment, text=True,
                               capture_output=True, timeout=30, check=False)
        if ended.returncode != 0:
            raise CannotRun(f"{program} fails: {ended.stderr.strip()}")
        return ended.stdout

    def ask(self, program, *arguments):
        """What a program of Slurm prints; nothing where it fails."""
        try:
            return self._call(program, *arguments)
        except CannotRun:
            return ""

    def _log(self, program):
        return self.folder / f"{program}.out"

    def _start_daemon(self, program, *arguments):
        with open(self._log(program), "wb") as log:
            self.daemons.append((program, subprocess.Popen(
                [self.programs[program], *map(str, arguments)], env=self.environment, stdin=subprocess.DEVNULL,
                stdout=log, stderr=log, start_new_session=True, preexec_fn=end_with_parent)))

    def _wait_for(self, what, ready, seconds=30):
        until = time.monotonic() + seconds
        while not ready():
            for program, daemon in self.daemons:
                if daemon.poll() is not None:
                    raise CannotRun(f"{program} ended: {self._last_words(program)}")
            if time.monotonic() > until:
                words = "; ".join(f"{program}: {self._last_words(program)}" for program, _ in self.daemons)
                raise CannotRun(f"no {what} after {seconds} s; {words}")
            time.sleep(0.1)

    def _last_words(self, program):
        lines = self._log(program).read_text(errors="replace").strip().splitlines()
        return lines[-1] if lines else "(nothing)"

    def close(self):
        for _, daemon in reversed(self.daemons):
            daemon.terminate()
        for _, daemon in reversed(self.daemons):
            with contextlib.suppress(subprocess.TimeoutExpired):
                daemon.wait(timeout=5)
        self._end_what_is_left()
        for _, daemon in self.daemons:
            daemon.wait()
        self.daemons.clear()

    def _end_what_is_left(self):
        """Jobs, and daemons that do not go: all processes that were told of this Slurm."""
        ours = f"SLURM_CONF={self.environment['SLURM_CONF']}".encode()
        for process in pathlib.Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if process.name.isdigit() and ours in (process / "environ").read_bytes().split(b"\0"):
                    os.kill(int(process.name), signal.SIGKILL)
