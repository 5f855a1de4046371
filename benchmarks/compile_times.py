#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Seconds that compilers take for each header alone, and for the umbrellas.

usage: compile_times.py [header ...] [--compiler PATH ...] [--include DIR ...] [--skip HEADER ...]
                        [--markdown FILE]

Headers are named below include/, as in addloss/losses/r1.hpp; by default all. A unit that includes
the header and nothing else is compiled with -std=c++20 -O2; of umbrellas the least time of three
counts. Seconds are of the processor: what else the machine does then counts little. nvcc compiles
for its default architecture: it alone the .cuh headers, and the others but those of the CPU's back
end.
"""

import argparse
import os
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile

INCLUDE = pathlib.Path(__file__).resolve().parent.parent / "include"
UMBRELLAS = ("addloss/addloss.hpp", "addloss/cuda.cuh")
NOT_FOR_NVCC = ("addloss/addloss.hpp", "addloss/cpu/")  # SIMD code; addloss/cuda.cuh stands for it
TARGET = ("addloss/addloss.hpp", 1.0)  # seconds, at most


def default_compilers():
    names = ("g++", "clang++", "nvcc", "/usr/local/cuda/bin/nvcc")
    found = {os.path.basename(path): path for path in map(shutil.which, names) if path}
    return list(found.values())


def default_headers():
    found = sorted(str(p.relative_to(INCLUDE)) for p in INCLUDE.rglob("*")
                   if p.suffix in (".hpp", ".cuh"))
    return [h for h in UMBRELLAS if h in found] + [h for h in found if h not in UMBRELLAS]


def is_nvcc(compiler):
    return os.path.basename(compiler) == "nvcc"


def version(compiler):
    done = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=True)
    lines = done.stdout.strip().splitlines()
    return next(l for l in lines if "release" in l) if is_nvcc(compiler) else lines[0]


def compiles(compiler, header):
    """Whether a header is meant for this compiler."""
    if is_nvcc(compiler):
        return not header.startswith(NOT_FOR_NVCC)
    return not header.endswith(".cuh")


def processor_seconds():
    """Of all processes that this one has started and seen to their end."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def seconds(compiler, header, includes=()):
    """None where the header does not compile."""
    with tempfile.TemporaryDirectory() as directory:
        unit = pathlib.Path(directory, "unit" + (".cu" if is_nvcc(compiler) else ".cpp"))
        unit.write_text(f"#include <{header}>\n", encoding="ascii")
        command = [compiler, "-std=c++20", "-O2", "-c", f"-I{INCLUDE}"]
        command += [word for directory in includes for word in ("-isystem", directory)]
        command += [str(unit), "-o", str(unit.with_suffix(".o"))]
        times = []
        for _ in range(3 if header in UMBRELLAS else 1):
            begin = processor_seconds()
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            times.append(processor_seconds() - begin)
            if done.returncode != 0:
                print(done.stderr, file=sys.stderr)
                return None
        return min(times)


def measure(compilers, headers, includes, skip):
    """{header: a cell for each compiler}; prints a line a header as it goes. And what failed."""
    names = [os.path.basename(c) for c in compilers]
    print(f"{'seconds to compile alone':44}" + "".join(f"{n:>10}" for n in names), flush=True)
    rows, failed = {}, []
    for header in headers:
        if header in skip:
            continue
        row = []
        for compiler in compilers:
            if not compiles(compiler, header):
                row.append("")
                continue
            took = seconds(compiler, header, includes)
            row.append("failed" if took is None else f"{took:.2f}")
            if took is None:
                failed.append(header)
        print(f"{header:44}" + "".join(f"{cell:>10}" for cell in row), flush=True)
        rows[header] = row
    return rows, failed


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("headers", metavar="header", nargs="*")
    parser.add_argument("--compiler", action="append", metavar="PATH")
    parser.add_argument("--include", action="append", default=[], metavar="DIR")
    parser.add_argument("--skip", action="append", default=[], metavar="HEADER",
                        help="one that needs what was not found")
    parser.add_argument("--markdown", metavar="FILE", help="also write the table there")
    options = parser.parse_args()
    compilers = options.compiler or default_compilers()
    versions = [f"{os.path.basename(compiler)}: {version(compiler)}" for compiler in compilers]
    print("\n".join(versions))
    rows, failed = measure(compilers, options.headers or default_headers(), options.include,
                           options.skip)
    if options.markdown:
        names = [os.path.basename(c) for c in compilers]
        lines = ["## Compile times", "", "Processor seconds, -O2. " + "; ".join(versions), "",
                 "| header | " + " | ".join(names) + " |", "| --- |" + " ---: |" * len(names)]
        lines += [f"| {header} | " + " | ".join(row) + " |" for header, row in rows.items()]
        with open(options.markdown, "w", encoding="utf-8") as file:
            file.write("\n".join(lines) + "\n")
    if failed:
        sys.exit("do not compile: " + ", ".join(failed))


if __name__ == "__main__":
    main()
