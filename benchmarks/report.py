#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs benchmark programs, prints one table and writes a report with plots.

usage: report.py program-or-JSON ... [--out DIR] [--min-time S] [--compiler TEXT] [--flags TEXT]
                 [--compile COMPILER] [--append FILE ...]
                 [--earlier FILE ...]

JSON: what a program wrote on another machine, or earlier: --benchmark_out=FILE. Programs on a CPU
and those on a GPU have reports of their own.
Writes DIR/report.md and its plots, and DIR/results.json, all that the programs measured. The exit
status is 1 if a benchmark failed: where a peer gives other results than ours.
"""

import argparse
import json
import math
import os
import pathlib
import platform
import re
import subprocess
import sys
import time

import compile_times
import plot

# Of a call on a GPU: a copy of as many bytes, and as many launches of nothing.
DEVICE_LIMITS = ("copy", "launch")
PEERS = ("eigen", "xtensor", "std", "eager", *DEVICE_LIMITS, "cub", "separate")
BENCHMARKS_OF = "bench_"

# The rows of the main table: what it says, the program, the benchmark.
MAIN = (
    ("distillation, latents [8, 4, 64, 64]", "losses_distillation",
     "value_and_grad<float>/8/4/64/64/threads:1"),
    ("distillation, latents, 2 threads", "losses_distillation",
     "value_and_grad<float>/8/4/64/64/threads:2"),
    ("distillation, latents, bfloat16", "losses_distillation",
     "value_and_grad<add::bfloat16>/8/4/64/64/threads:1"),
    ("distillation, images [8, 3, 512, 512]", "losses_distillation",
     "value_and_grad<float>/8/3/512/512/threads:1"),
    ("distillation, images, 2 threads", "losses_distillation",
     "value_and_grad<float>/8/3/512/512/threads:2"),
    ("distillation from the teacher, latents", "losses_distillation",
     "from_teacher/8/4/64/64/threads:1"),
    ("hinge, 5 heads of [8, 257]", "losses_adversarial",
     "hinge_discriminator/heads:5/tokens:257"),
    ("relativistic loss, 5 heads of [8, 257]", "losses_paired", "relativistic/heads:5/tokens:257"),
    ("R1, 5 heads of [8, 384, 197]", "losses_r1", "r1/heads:5/threads:1"),
    ("R1, 5 heads, 2 threads", "losses_r1", "r1/heads:5/threads:2"),
    ("student's objective, latents and 5 heads", "losses_objective", "student/8/threads:1"),
    ("distillation, latents, LibTorch's tensors", "torch_losses", "distillation/side:64"),
    ("hinge, 5 heads, LibTorch's tensors", "torch_losses", "hinge_discriminator"),
    ("noising, stored noise, latents", "noising_forward", "add_noise_stored/8/16384/threads:1"),
    ("noising, generated noise, latents", "noising_forward",
     "add_noise_generated/8/16384/threads:1"),
    ("noising, generated noise, images, 2 threads", "noising_forward",
     "add_noise_generated/8/786432/threads:2"),
    ("4 steps with re-noising, latents", "noising_few_step",
     "four_steps<add::re_noise>/8/threads:1"),
    ("convolution of 9 taps, [8, 384, 197]", "heads_conv1d",
     "conv1d<kind::forward, method::toom_cook>/kernel:9/threads:1"),
    ("convolution of 9 taps, direct", "heads_conv1d",
     "conv1d<kind::forward, method::direct>/kernel:9/threads:1"),
    ("matrix product, [392, 128] [128, 256]", "heads_matrix_product",
     "matrix_product<layout::plain, layout::plain>/m:392/n:256/k:128"),
    ("local norm, [8, 384, 197]", "heads_local_norm",
     "local_norm<float, pass_kind::forward>/threads:1"),
    ("local norm, backward", "heads_local_norm",
     "local_norm<float, pass_kind::backward>/threads:1"),
    ("local norm, second order", "heads_local_norm",
     "local_norm<float, pass_kind::tangent_backward>/threads:1"),
    ("group norm, [8, 384, 197]", "heads_group_norm",
     "group_norm<float, pass_kind::forward>/threads:1"),
    ("group norm, backward", "heads_group_norm",
     "group_norm<float, pass_kind::backward>/threads:1"),
    ("projection, [8, 384, 197]", "heads_projection", "projection<kind::forward>/threads:1"),
    ("projection, backward", "heads_projection", "projection<kind::backward>/threads:1"),
    ("spectral norm of [384, 3456], update", "heads_spectral_norm", "update/threads:1"),
    ("step of 1 head with R1, [8, 384, 197]", "heads_head_stack",
     "heads<step::discriminator, method::toom_cook>/heads:1/threads:1"),
    ("step of 1 head with R1, 2 threads", "heads_head_stack",
     "heads<step::discriminator, method::toom_cook>/heads:1/threads:2"),
    ("step of 5 heads with R1", "heads_head_stack",
     "heads<step::discriminator, method::toom_cook>/heads:5/threads:1"),

    ("distillation, latents [8, 4, 64, 64]", "cuda_losses_distillation",
     "distillation<float, target>/8/16384/graph:0"),
    ("distillation, latents, in a graph of 20", "cuda_losses_distillation",
     "distillation<float, target>/8/16384/graph:20"),
    ("distillation, 64 latents", "cuda_losses_distillation",
     "distillation<float, target>/64/16384/graph:0"),
    ("distillation, 512 latents", "cuda_losses_distillation",
     "distillation<float, target>/512/16384/graph:0"),
    ("distillation, 4096 latents", "cuda_losses_distillation",
     "distillation<float, target>/4096/16384/graph:0"),
    ("distillation, images [48, 3, 512, 512]", "cuda_losses_distillation",
     "distillation<float, target>/48/786432/graph:0"),
    ("distillation, images, half", "cuda_losses_distillation",
     "distillation<add::half, target>/48/786432/graph:0"),
    ("distillation, images, bfloat16", "cuda_losses_distillation",
     "distillation<add::bfloat16, target>/48/786432/graph:0"),
    ("distillation, images, the value alone", "cuda_losses_distillation",
     "distillation<float, value>/48/786432/graph:0"),
    ("distillation from the teacher, images", "cuda_losses_distillation",
     "distillation<float, teacher>/48/786432/graph:0"),
    ("hinge, 5 heads of [8, 257]", "cuda_losses_adversarial",
     "adversarial<float, false>/heads:5/8/257/graph:0"),
    ("hinge, 5 heads, in a graph of 20", "cuda_losses_adversarial",
     "adversarial<float, false>/heads:5/8/257/graph:20"),
    ("hinge, 5 heads of [512, 65536]", "cuda_losses_adversarial",
     "adversarial<float, false>/heads:5/512/65536/graph:0"),
    ("hinge, 5 heads of [512, 65536], half", "cuda_losses_adversarial",
     "adversarial<add::half, false>/heads:5/512/65536/graph:0"),
    ("hinge, 5 heads of [512, 65536], bfloat16", "cuda_losses_adversarial",
     "adversarial<add::bfloat16, false>/heads:5/512/65536/graph:0"),
    ("relativistic loss, 5 heads of [8, 257]", "cuda_losses_paired",
     "paired<float, relativistic>/heads:5/8/257/graph:0"),
    ("relativistic loss, 5 heads of [512, 65536]", "cuda_losses_paired",
     "paired<float, relativistic>/heads:5/512/65536/graph:0"),
    ("R1, 5 heads of [8, 384, 197]", "cuda_losses_r1", "r1<float>/heads:5/8/75648/graph:0"),
    ("R1, 5 heads of [256, 384, 197]", "cuda_losses_r1", "r1<float>/heads:5/256/75648/graph:0"),
    ("R1, the value alone", "cuda_losses_r1", "r1<float, form::value>/heads:5/256/75648/graph:0"),
    ("student's objective, latents and 5 heads", "cuda_losses_objective",
     "student<float>/8/16384/graph:0"),
    ("student's objective, images and 5 heads", "cuda_losses_objective",
     "student<float>/48/786432/graph:0"),
    ("noising, stored noise, latents", "cuda_noising_forward",
     "add_noise<float, true>/8/16384/graph:0"),
    ("noising, stored noise, images", "cuda_noising_forward",
     "add_noise<float, true>/48/786432/graph:0"),
    ("noising, generated noise, images", "cuda_noising_forward",
     "add_noise<float, false>/48/786432/graph:0"),
    ("4 steps with re-noising, latents", "cuda_noising_few_step",
     "four_steps<float, add::re_noise>/8/16384/graph:0"),
    ("4 steps with re-noising, images", "cuda_noising_few_step",
     "four_steps<float, add::re_noise>/48/786432/graph:0"),
)

# Time against a number n: what it says, the program, the benchmark with n in brackets, n is per ..
SERIES = (
    ("distillation, latents of n samples", "losses_distillation",
     r"value_and_grad<float>/(\d+)/4/64/64/threads:1"),
    ("distillation, latents of n samples, 2 threads", "losses_distillation",
     r"value_and_grad<float>/(\d+)/4/64/64/threads:2"),
    ("hinge, n heads of [8, 257]", "losses_adversarial",
     r"hinge_discriminator/heads:(\d+)/tokens:257"),
    ("timesteps, n samples", "sampler_sample", r"uniform/(\d+)"),
    ("step of 1 head with R1, n samples", "heads_head_stack",
     r"sizes<step::discriminator, method::toom_cook>/batch:(\d+)/tokens:197"),
    ("step of 1 head with R1, n tokens", "heads_head_stack",
     r"sizes<step::discriminator, method::toom_cook>/batch:8/tokens:(\d+)"),
    ("step of n heads with R1", "heads_head_stack",
     r"heads<step::discriminator, method::toom_cook>/heads:(\d+)/threads:1"),

    ("distillation, latents of n samples", "cuda_losses_distillation",
     r"distillation<float, target>/(\d+)/16384/graph:0"),
    ("hinge, n heads of [8, 257]", "cuda_losses_adversarial",
     r"adversarial<float, false>/heads:(\d+)/8/257/graph:0"),
    ("hinge, n heads of [8, 257], in a graph of 20", "cuda_losses_adversarial",
     r"adversarial<float, false>/heads:(\d+)/8/257/graph:20"),
    ("hinge, n heads of [512, 65536]", "cuda_losses_adversarial",
     r"adversarial<float, false>/heads:(\d+)/512/65536/graph:0"),
    ("R1, n heads of [8, 384, 197]", "cuda_losses_r1", r"r1<float>/heads:(\d+)/8/75648/graph:0"),
    ("R1, n heads of [256, 384, 197]", "cuda_losses_r1",
     r"r1<float>/heads:(\d+)/256/75648/graph:0"),
)

# Plots of time against size: the file, what it says, what the size is, the program, the benchmark
# with the extents of the size in brackets.
PLOTS = (
    ("distillation.svg", "distillation loss and gradient, float, 1 thread", "elements",
     "losses_distillation", r"value_and_grad<float>/([\d/]+)/threads:1"),
    ("noising.svg", "noising with stored noise, float, 1 thread", "elements",
     "noising_forward", r"add_noise_stored/([\d/]+)/threads:1"),
    ("heads.svg", "hinge of K heads of [8, 257], both sides", "K", "losses_adversarial",
     r"hinge_discriminator/heads:(\d+)/tokens:257"),

    ("distillation.svg", "distillation loss and gradient, float", "elements",
     "cuda_losses_distillation", r"distillation<float, target>/(\d+/16384|48/786432)/graph:0"),
    ("heads.svg", "hinge of K heads of [8, 257], both sides", "K", "cuda_losses_adversarial",
     r"adversarial<float, false>/heads:(\d+)/8/257/graph:0"),
    ("large_heads.svg", "hinge of K heads of [512, 65536], both sides", "K",
     "cuda_losses_adversarial", r"adversarial<float, false>/heads:(\d+)/512/65536/graph:0"),
)
PLOTTED = ("limit", "eigen", "xtensor", *DEVICE_LIMITS)


class Row:
    """What one benchmark measured; times in microseconds."""

    def __init__(self, program, entry):
        self.program = program.removeprefix(BENCHMARKS_OF)
        self.name = re.sub(r"(/iterations:\d+)?(/manual_time)?$", "", entry["run_name"])
        self.counters = {k: v for k, v in entry.items() if isinstance(v, float)}
        self.error = entry.get("error_message") if entry.get("error_occurred") else None
        self.time = self.counters.get("median_us", 1e3 * self.counters.get("median_ms", 0))

    @classmethod
    def kept(cls, entry):
        """From results.json."""
        row = cls.__new__(cls)
        vars(row).update(entry)
        return row

    def get(self, counter):
        return self.counters.get(counter)

    def share_of_limit(self):
        """On a GPU that of a copy or of launches, whichever takes longer."""
        found = [self.get(name) for name in ("limit", *DEVICE_LIMITS) if self.get(name)]
        return max(found, default=None)

    def targets(self):
        """(counter, its value, relation, the number aimed at, whether it is reached) each."""
        for counter, aim in self.counters.items():
            for suffix, sign in (("_at_least", ">="), ("_at_most", "<=")):
                if counter.endswith(suffix):
                    name = counter.removesuffix(suffix)
                    reached = self.counters[name]
                    met = reached >= aim if sign == ">=" else reached <= aim
                    yield name, reached, sign, aim, met


def run(programs, min_time, directory):
    rows, context = [], {}
    for i, program in enumerate(programs, 1):
        name = os.path.basename(program)
        if name.endswith(".json"):
            measured = json.loads(pathlib.Path(program).read_text(encoding="utf-8"))
            context = measured["context"]
            rows += [Row(name.removesuffix(".json"), entry) for entry in measured["benchmarks"]]
            continue
        out = directory / f"{name}.json"
        print(f"[{i}/{len(programs)}] {name}", end="", flush=True)
        begin = time.perf_counter()
        done = subprocess.run(
            [program, f"--benchmark_min_time={min_time}", f"--benchmark_out={out}",
             "--benchmark_out_format=json"],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"\n{name} ended with status {done.returncode}:\n{done.stderr}")
        print(f"  {time.perf_counter() - begin:.1f} s")
        measured = json.loads(out.read_text(encoding="utf-8"))
        out.unlink()
        context = measured["context"]
        rows += [Row(name, entry) for entry in measured["benchmarks"]]
    return rows, context


def less_disturbed(rows, entries):
    """Of each benchmark the run that took less time; errors stay."""
    earlier = {(e["program"], e["name"]): Row.kept(e) for e in entries if not e["error"]}

    def best(row):
        other = earlier.get((row.program, row.name), row)
        return row if row.error else min(row, other, key=lambda r: r.time)

    return [best(row) for row in rows]


def duration(microseconds):
    for unit, factor in (("ns", 1e3), ("us", 1.0), ("ms", 1e-3)):
        number = microseconds * factor
        if number < 1000 or unit == "ms":
            return f"{number:.3g} {unit}" if number < 1000 else f"{number:.0f} {unit}"
    return ""


def number(value):
    for suffix, unit in (("G", 1e9), ("M", 1e6)):
        if abs(value) >= unit:
            return f"{value / unit:.3g}{suffix}"
    return f"{value:.3g}"


def cells(title, row):
    """One row of a table."""
    bytes_s, flops, share = row.get("bytes/s"), row.get("GFLOPs"), row.share_of_limit()
    result = [title, duration(row.time), f"{bytes_s * 1e-9:.1f}" if bytes_s else "",
              f"{flops:.0f}" if flops else "", f"{share:.2f}" if share else ""]
    for peer in PEERS:
        ratio = row.get(peer)
        result.append(f"{duration(ratio * row.time)} ({ratio:.1f} x)" if ratio else "")
    allocated = row.get("allocations")
    result.append("" if allocated is None else f"{allocated:.0f}")
    aims = [f"{name} {number(reached)} {sign} {number(aim)}: {'yes' if met else 'NO'}"
            for name, reached, sign, aim, met in row.targets()]
    return result + ["; ".join(aims)]


HEAD = ["", "ours", "GB/s", "GFLOP/s", "of the limit", *PEERS, "allocations", "target"]

LEGEND = """- One call, in float and on one thread where nothing else is said; losses with gradients.
- of the limit: the speed of the simplest loops that read and write as much, or of multiply-adds
  in registers where there are GFLOP/s; 1 is as fast. GFLOP/s are as if convolutions were done in
  direct form, the share counts the multiplications that are done.
- eigen, xtensor: the same in expressions of these libraries; std: the standard library's normal
  numbers; eager: LibTorch's operations and autograd; separate: the same work in a call for each
  part. In brackets, how many times ours each takes.
- target: what was aimed at, and whether it was reached. triad: our speed by that of STREAM's
  triad, whose stores go through the caches; per_core: elements a second and core."""

GPU_LEGEND = """- One call, in float and not in a graph where nothing else is said; losses with
  gradients.
- copy: within the GPU's memory, of which it reads and writes as many bytes as ours; launch: as many
  launches of a kernel that does nothing; cub: `cub::DeviceReduce` of the same terms; separate: the
  same work in a call for each part. All in turns with ours and as ours, singly or in a graph. In
  brackets, how many times ours each takes.
- of the limit: of copy or launch, whichever takes longer; 1 is as fast.
- target: what was aimed at, and whether it was reached."""


def filled(head, table):
    """Without the columns that have nothing in them."""
    used = [i for i in range(len(head)) if i == 0 or any(line[i] for line in table)]
    return [[line[i] for i in used] for line in (head, *table)]


def print_table(head, table):
    head, *table = filled(head, table)
    widths = [max(len(line[i]) for line in [head, *table]) for i in range(len(head))]
    for line in [head, *table]:
        first, *others = (c.ljust(w) if i in (0, len(head) - 1) else c.rjust(w)
                          for i, (c, w) in enumerate(zip(line, widths)))
        print("  ".join([first, *others]).rstrip())


def markdown(head, table):
    head, *table = filled(head, table)
    return "\n".join(["| " + " | ".join(head) + " |",
                      "| --- " + "| ---: " * (len(head) - 2) + "| --- |",
                      *("| " + " | ".join(line) + " |" for line in table), ""])


def line_through(points):
    """a, b of time = a + b n with the least relative errors, and the largest of these."""
    weights = [1 / t**2 for _, t in points]
    total = sum(weights)
    mean_n = sum(w * n for w, (n, _) in zip(weights, points)) / total
    mean_t = sum(w * t for w, (_, t) in zip(weights, points)) / total
    b = (sum(w * (n - mean_n) * (t - mean_t) for w, (n, t) in zip(weights, points))
         / sum(w * (n - mean_n)**2 for w, (n, _) in zip(weights, points)))
    a = mean_t - b * mean_n
    return a, b, max(abs(a + b * n - t) / t for n, t in points)


def scaling(rows):
    table = []
    for title, program, pattern in SERIES:
        points = sorted((int(match[1]), row.time) for row in rows if row.program == program
                        and (match := re.fullmatch(pattern, row.name)))
        if len(points) < 2:
            continue
        a, b, error = line_through(points)
        table.append([title, ", ".join(str(n) for n, _ in points), duration(max(a, 0)),
                      duration(b), f"{100 * error:.0f} %" if len(points) > 2 else ""])
    return table


def threads(rows):
    by_name = {(row.program, row.name): row for row in rows}
    table = []
    for row in rows:
        other = by_name.get((row.program, re.sub(r"threads:1$", "threads:2", row.name)))
        if row.name.endswith("threads:1") and other:
            table.append([f"{row.program}: {row.name.removesuffix('/threads:1')}",
                          duration(row.time), duration(other.time), f"{row.time / other.time:.2f}"])
    return table


def size_plots(rows):
    """File name and plot of time against size."""
    for file, title, label, program, pattern in PLOTS:
        series = {"ours": [], **{name: [] for name in PLOTTED}}
        for row in rows:
            match = re.fullmatch(pattern, row.name)
            if row.program != program or not match:
                continue
            size = math.prod(map(int, match[1].split("/")))
            series["ours"].append((size, row.time))
            for name in PLOTTED:
                if row.get(name):
                    series[name].append((size, row.get(name) * row.time))
        series = {name: points for name, points in series.items() if points}
        if series:
            yield file, plot.lines(title, label, "microseconds", series)


def chip():
    with open("/proc/cpuinfo", encoding="ascii") as lines:
        return next((l.split(":")[1].strip() for l in lines if l.startswith("model name")), "?")


def machine(options, context):
    """What the programs ran on, and what made them."""
    if "gpu" in context:
        return [f"- {context['gpu']}, driver {context.get('driver', 'unknown')}, "
                f"CUDA {context['cuda']}"]
    load = ", ".join(f"{l:.1f}" for l in context.get("load_avg", []))
    return [f"- {chip()}, {context['num_cpus']} cores at {context['mhz_per_cpu']} MHz",
            f"- {platform.system()} on {platform.machine()}, load {load}",
            f"- {options.compiler}, `{options.flags}`"]


def write_report(options, rows, context, compiled, main_table):
    out = options.out
    plots = dict(size_plots(rows))
    shares = [(title, row.share_of_limit()) for title, row in main_rows(rows)]
    if shares := [(title, share) for title, share in shares if share]:
        plots["limit.svg"] = plot.bars("share of the limit: 1 is as fast", shares)
    for name, picture in plots.items():
        (out / name).write_text(picture, encoding="utf-8")

    lines = ["# Benchmark report", "", *machine(options, context),
             f"- {context['date'][:10]}; `{options.command}`", "",
             "`benchmarks/README.md` says more about how to read it. Times are medians."
             + (f" Of each benchmark the best of {1 + len(options.earlier)} runs."
                if options.earlier else ""), ""]
    if compiled:
        lines += [f"To compile `#include <addloss/addloss.hpp>`: {compiled}", ""]
    legend = GPU_LEGEND if "gpu" in context else LEGEND
    lines += ["## Main table", "", legend, "", markdown(HEAD, main_table)]
    lines += [f"![{name}]({name})" for name in plots]
    if table := scaling(rows):
        lines += ["", "## Scaling", "",
                  "The line constant + n (for each) through the times at the sizes n, and how far "
                  "the farthest time is off it.", "",
                  markdown(["", "n", "constant", "for each", "off by at most"], table)]
    if table := threads(rows):
        lines += ["", "Two threads:", "",
                  markdown(["", "1 thread", "2 threads", "speed-up"], table)]
    for file in options.append:
        lines += ["", file.read_text(encoding="utf-8")]
    lines += ["", "## All", ""]
    for program in dict.fromkeys(row.program for row in rows):
        lines += [f"### {program}", "",
                  markdown(HEAD, [cells(f"`{row.name}`", row) for row in rows
                                  if row.program == program])]
    (out / "report.md").write_text("\n".join(lines), encoding="utf-8")
    print(f"\n{out / 'report.md'}, {', '.join(plots)}")


def main_rows(rows):
    by_name = {(row.program, row.name): row for row in rows}
    for title, program, name in MAIN:
        if row := by_name.get((program, name)):
            yield title, row


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", metavar="program-or-JSON", nargs="+")
    parser.add_argument("--out", type=pathlib.Path, default="build/bench/report")
    parser.add_argument("--min-time", default="0.05", help="seconds for each benchmark's own calls")
    parser.add_argument("--compiler", default="", help="what made the programs, for the report")
    parser.add_argument("--flags", default="", help="its flags, for the report")
    parser.add_argument("--command", default=" ".join(sys.argv), help="for the report")
    parser.add_argument("--compile", metavar="COMPILER",
                        help="time the umbrella's compilation by this compiler")
    parser.add_argument("--earlier", type=pathlib.Path, metavar="FILE", nargs="*", default=[],
                        help="results.json of earlier runs: the least time of each benchmark counts")
    parser.add_argument("--append", type=pathlib.Path, metavar="FILE", nargs="*", default=[],
                        help="what compare_with_torch.py and compile_times.py wrote: --markdown")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)

    compiled = ""
    if options.compile:
        header, most = compile_times.TARGET
        took = compile_times.seconds(options.compile, header)
        if took is None:
            sys.exit(f"{header} does not compile")
        compiled = f"{took:.2f} s, target <= {most:g} s: {'yes' if took <= most else 'NO'}"
        print(f"to compile #include <{header}>: {compiled}")
    rows, context = run(options.programs, options.min_time, options.out)
    for file in options.earlier:
        rows = less_disturbed(rows, json.loads(file.read_text(encoding="utf-8")))
    keep = [vars(row) for row in rows]
    (options.out / "results.json").write_text(json.dumps(keep, indent=1), encoding="utf-8")

    failed = [row for row in rows if row.error]
    rows = [row for row in rows if not row.error]
    main_table = [cells(title, row) for title, row in main_rows(rows)]
    print()
    print_table(HEAD, main_table)
    missed = [(row, target) for row in rows for target in row.targets() if not target[-1]]
    if missed:
        print("\nTargets not reached:")
        for row, (name, reached, sign, aim, _) in missed:
            print(f"  {row.program} {row.name}: {name} {number(reached)}, "
                  f"target {sign} {number(aim)}")
    write_report(options, rows, context, compiled, main_table)
    for row in failed:
        print(f"{row.program} {row.name}: {row.error}", file=sys.stderr)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
