# SPDX-License-Identifier: MIT
"""What the comparisons with PyTorch share: processes of their own, and turns."""

import json
import os
import subprocess
import sys
import time


def chip():
    with open("/proc/cpuinfo", encoding="ascii") as lines:
        return next((l.split(":")[1].strip() for l in lines if l.startswith("model name")), "?")


def openmp_runtimes():
    with open("/proc/self/maps", encoding="ascii") as maps:
        paths = {line.split()[-1] for line in maps if ".so" in line}
    names = ("libgomp", "libomp", "libiomp")
    return sorted(p for p in paths if os.path.basename(p).startswith(names))


def wait_passively_if_two_runtimes():
    """Starts this program again if need be: the threads of one runtime of OpenMP would spin on the
    cores while the other works. Call it once both are loaded."""
    if len(openmp_runtimes()) > 1 and "OMP_WAIT_POLICY" not in os.environ:
        os.environ["OMP_WAIT_POLICY"] = "passive"
        os.execv(sys.executable, [sys.executable, *sys.argv])


def seconds(function, calls=1):
    """Of one call."""
    begin = time.perf_counter()
    for _ in range(calls):
        function()
    return (time.perf_counter() - begin) / calls


def take_turns(runs, turns):
    """`runs`: name -> function. Times of each turn, and CPU time by wall-clock time."""
    calls = {}
    for name, function in runs.items():
        function()
        calls[name] = max(1, int(1e-3 / seconds(function)))
    times = {name: [] for name in runs}
    busy = {name: 0.0 for name in runs}
    for _ in range(turns):
        for name, function in runs.items():
            begin = time.process_time()
            times[name].append(seconds(function, calls[name]))
            busy[name] += time.process_time() - begin
    return {"times": times,
            "cores": {name: busy[name] / (calls[name] * sum(times[name])) for name in runs}}


def call_worker(script, threads, malloc_for_speed, *arguments):
    """Runs the script anew with these arguments; the JSON of its last line."""
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    environment["OMP_NUM_THREADS"] = str(threads)
    if malloc_for_speed:
        # Without these glibc gives memory back and takes it anew in every step of PyTorch.
        environment |= {"MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_TOP_PAD_": str(2**28),
                        "MALLOC_MMAP_MAX_": "0"}
    command = [sys.executable, os.path.abspath(script), *map(str, arguments),
               "--threads", str(threads)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)} failed with status {done.returncode}")
    return json.loads(done.stdout.splitlines()[-1])
