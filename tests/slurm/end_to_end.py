"""A sweep over a real Slurm of this machine alone: one task is killed in the middle, a rerun completes the sweep, and
the store holds what a local run finds.

    end_to_end.py TRAINYARD [--seconds N]

Exit status: 0 passed, 1 failed, 77 skipped; then the last line says why Slurm cannot run here.
"""

import argparse
import contextlib
import json
import os
import pathlib
import re
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time

import single_machine

SKIPPED = 77
TASKS = 4
POINTS = 64
MEASURED = {"engine.wall_s", "engine.peak_rss_bytes"}  # of the machine, not of the scenario

# Points of 20 to 200 ms, so that a task can be killed between two of them. Micro batches of 5 do not divide the global
# batch: what failed is merged too.
SWEEP = """\
name: Slurm, end to end
base: SCENARIO
vary:
  cluster.nodes: [32, 64, 128, 256]
  training.global_batch: [256, 512, 768, 1024]
  training.micro_batch: [1, 2, 4, 5]
"""


class Failed(Exception):
    """What is not as it should be."""


def expect(condition, message):
    if not condition:
        raise Failed(message)


def say(text):
    print(f"{time.monotonic() - STARTED:5.1f} s  {text}", flush=True)


class Sweep:
    """The program, on one sweep file in a folder whose name takes some quoting."""

    def __init__(self, program, folder, environment):
        self.program = program
        self.folder = pathlib.Path(folder) / "it's 100%a \"sweep\""
        self.environment = environment
        self.folder.mkdir()
        (self.folder / "sweep.yaml").write_text(SWEEP.replace("SCENARIO", json.dumps(str(SCENARIO))))

    def run(self, store, *arguments):
        ended = subprocess.run(
            [self.program, "sweep", "sweep.yaml", "--store", store, *arguments], cwd=self.folder, text=True,
            env=self.environment, capture_output=True, timeout=60, check=False)
        expect(ended.returncode == 0, f"{arguments} ends with {ended.returncode}: {ended.stdout}{ended.stderr}")
        return ended.stdout

    def submit(self):
        return self.run("slurm.db", "--slurm", f"--slurm-tasks={TASKS}", "--csv=slurm.csv",
                        "--slurm-args=--time=10 --comment='two words'")

    def jobs_folder(self):
        folders = list((self.folder / "slurm.db.slurm").iterdir())
        expect(len(folders) == 1, f"expected one folder of jobs, got {folders}")
        return folders[0]

    def to_do(self):
        return int(re.search(r"(\d+) to do", self.run("slurm.db", "--status"))[1])

    def wait_for_merge(self, slurm):
        """Until nothing is queued; then the log of the merge says how it ended."""
        until = time.monotonic() + 60
        while slurm.ask("squeue", "--noheader").strip():
            expect(time.monotonic() < until, "jobs do not end:\n" + slurm.ask("squeue"))
            time.sleep(0.2)
        log = self.jobs_folder() / "merge.log"
        expect(log.exists(), "the merge has not run")
        return log.read_text()


def process_of(task):
    """The process that simulates the share of a task."""
    for folder in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and b"--slurm-share=" in (folder / "cmdline").read_bytes():
                if f"SLURM_ARRAY_TASK_ID={task}".encode() in (folder / "environ").read_bytes().split(b"\0"):
                    return int(folder.name)
    return None


def kill_in_the_middle(folder, task):
    """Returns how many points it had simulated when it was killed."""
    progress, until = folder / f"task-{task}.progress", time.monotonic() + 30
    while not progress.exists() or progress.stat().st_size == 0:
        expect(time.monotonic() < until, f"task {task} does not begin: {folder}")
        time.sleep(0.005)
    process = process_of(task)
    expect(process is not None, f"task {task} has ended before it could be killed")
    os.kill(process, signal.SIGKILL)
    return progress.stat().st_size


def rows_of(store):
    with contextlib.closing(sqlite3.connect(store)) as database:
        database.row_factory = sqlite3.Row
        rows = [dict(row) for row in database.execute("SELECT * FROM points ORDER BY sweep, parameters")]
    for row in rows:
        for column in MEASURED:
            del row[column]
        if row["result_json"] is not None:
            row["result_json"] = json.loads(row["result_json"])
            for column in MEASURED:
                section, key = column.split(".")
                del row["result_json"][section][key]
    return rows


def expect_equal_stores(one, other):
    ours, theirs = rows_of(one), rows_of(other)
    expect(len(ours) == len(theirs) == POINTS, f"expected {POINTS} rows, got {len(ours)} and {len(theirs)}")
    for our, their in zip(ours, theirs):
        for column in our.keys() | their.keys():
            expect(our.get(column) == their.get(column),
                   f"{our['parameters']}: {column} is {our.get(column)} on Slurm and {their.get(column)} here")
    statuses = {row["status"] for row in ours}
    expect(statuses == {"ok", "failed"}, f"expected points of both kinds, got {statuses}")


def test(slurm, program, folder):
    sweep = Sweep(program, folder, slurm.environment)
    say(sweep.submit().splitlines()[0])
    done = kill_in_the_middle(sweep.jobs_folder(), task=1)
    say(f"task 1 is killed after {done} of {POINTS // TASKS} points")
    expect(done < POINTS // TASKS, "the task had nothing left to do")
    again = sweep.submit()
    expect("submitted" not in again and "merge job" in again, f"jobs that run are not submitted twice: {again}")
    say(again.splitlines()[-1])

    sweep.wait_for_merge(slurm)
    left = sweep.to_do()
    say(f"the parts are merged, {left} points are to do")
    expect(0 < left <= POINTS // TASKS - done, f"expected what the task had not done, and that is not {left}")

    sweep.submit()
    merged = sweep.wait_for_merge(slurm)
    expect(f"{POINTS} points: " in merged, f"the merge does not give out the results: {merged}")
    expect(sweep.to_do() == 0, "the rerun has not completed the sweep")
    say("a rerun has completed the sweep")

    sweep.run("local.db", "--csv=local.csv")
    expect_equal_stores(sweep.folder / "slurm.db", sweep.folder / "local.db")
    lines = [(sweep.folder / name).read_text().splitlines() for name in ("slurm.csv", "local.csv")]
    expect(len(lines[0]) == len(lines[1]) == POINTS + 1, "the exports differ")
    say("the store is that of a local run")

    ended = sweep.submit()
    expect("submitted" not in ended and not (sweep.folder / "slurm.db.slurm").exists(),
           f"with nothing left to do the folder goes: {ended}")


def stop(number, _):
    raise Failed(f"ended by {signal.Signals(number).name}" if number != signal.SIGALRM else "took too long")


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("program", type=pathlib.Path)
    arguments.add_argument("--seconds", type=int, default=150, help="give up after these")
    given = arguments.parse_args()
    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    signal.alarm(given.seconds)
    # Short: paths of sockets are, and Slurm's configuration takes no blanks.
    with tempfile.TemporaryDirectory(prefix="trainyard-slurm-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        try:
            with single_machine.SingleMachineSlurm(folder, cpus=TASKS) as slurm:
                say("Slurm is up")
                test(slurm, given.program.resolve(), folder)
                return 0
        except single_machine.CannotRun as reason:
            print(f"skipped: Slurm does not run here: {reason}")
            return SKIPPED
        except Failed as failure:
            print(f"FAILED: {failure}", file=sys.stderr)
            for log in sorted(pathlib.Path(folder).rglob("*.log")):
                print(f"--- {log.name}\n{log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
            return 1


STARTED = time.monotonic()
SCENARIO = pathlib.Path(__file__).resolve().parents[2] / "scenarios/library/gpt3-175b-1024-a100.yaml"
if __name__ == "__main__":
    sys.exit(main())
