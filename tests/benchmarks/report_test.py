#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""benchmarks/report.py on made-up numbers of programs on a GPU, where no GPU is needed."""

import json
import pathlib
import subprocess
import sys
import tempfile
import unittest

REPORT = pathlib.Path(__file__).resolve().parents[2] / "benchmarks/report.py"
CONTEXT = {"date": "2026-11-27T12:00:00+00:00", "num_cpus": 2, "mhz_per_cpu": 2600,
           "gpu": "Some GPU", "driver": "1.2", "cuda": "13.0"}


def entry(name, **counters):
    return {"run_name": f"{name}/iterations:15/manual_time", **counters}


def latents(samples, **counters):
    return entry(f"distillation<float, target>/{samples}/16384/graph:0", **counters)


def hinge(heads, **counters):
    return entry(f"adversarial<float, false>/heads:{heads}/8/257/graph:0", **counters)


def report(programs, *arguments):
    """The finished process and the files that it wrote, for program -> entries."""
    with tempfile.TemporaryDirectory() as directory:
        out = pathlib.Path(directory)
        files = []
        for program, entries in programs.items():
            files.append(out / f"{program}.json")
            files[-1].write_text(json.dumps({"context": CONTEXT, "benchmarks": entries}),
                                 encoding="utf-8")
        done = subprocess.run([sys.executable, REPORT, *files, "--out", out, *arguments],
                              capture_output=True, text=True, check=False)
        return done, {path.name: path.read_text(encoding="utf-8") for path in out.iterdir()}


class ReportOfGpu(unittest.TestCase):
    def test_head_table_and_scaling(self):
        # 5 us, and 50 ns a sample.
        distillation = [
            latents(8, median_us=5.4, copy=0.25, launch=0.5, median_us_at_most=4.0,
                    allocations=0.0),
            latents(64, median_us=8.2, copy=0.75, launch=0.25, median_us_at_most=9.0),
            latents(512, median_us=30.6, copy=0.95, copy_at_least=0.9),
            entry("distillation<float, value>/48/786432/graph:0", median_us=100.0, copy=1.0,
                  cub=1.5),
        ]
        done, files = report({"bench_cuda_losses_distillation": distillation})
        self.assertEqual(done.returncode, 0, done.stderr)
        lines = files["report.md"].splitlines()
        self.assertIn("- Some GPU, driver 1.2, CUDA 13.0", lines)
        self.assertTrue(any(line.startswith("- 2026-11-27; ") for line in lines))
        self.assertIn("|  | ours | of the limit | copy | launch | cub | allocations | target |",
                      lines)
        self.assertIn("| distillation, latents [8, 4, 64, 64] | 5.4 us | 0.50 | 1.35 us (0.2 x) | "
                      "2.7 us (0.5 x) |  | 0 | median_us 5.4 <= 4: NO |", lines)
        self.assertIn("| distillation, 64 latents | 8.2 us | 0.75 | 6.15 us (0.8 x) | "
                      "2.05 us (0.2 x) |  |  | median_us 8.2 <= 9: yes |", lines)
        self.assertIn("| distillation, images, the value alone | 100 us | 1.00 | 100 us (1.0 x) | "
                      " | 150 us (1.5 x) |  |  |", lines)
        self.assertIn("| distillation, latents of n samples | 8, 64, 512 | 5 us | 50 ns | 0 % |",
                      lines)
        # Ours, the copy and launches; a share of the limit for each row of the table.
        self.assertEqual(files["distillation.svg"].count("<polyline"), 3)
        self.assertEqual(files["limit.svg"].count("height='14' fill='#1f6feb'"), 4)
        self.assertIn("median_us 5.4, target <= 4", done.stdout)

    def test_heads(self):
        done, files = report({"bench_cuda_losses_adversarial":
                              [hinge(k, median_us=4 + 0.5 * k, copy=0.5) for k in (1, 2, 4, 8)]})
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("| hinge, n heads of [8, 257] | 1, 2, 4, 8 | 4 us | 500 ns | 0 % |",
                      files["report.md"])
        self.assertEqual(files["heads.svg"].count("<circle"), 8)

    def test_failed_benchmark(self):
        done, files = report({"bench_cuda_losses_distillation": [
            latents(8, error_occurred=True, error_message="cub gives another value"),
            latents(64, median_us=8.0), latents(512, median_us=64.0)]})
        self.assertEqual(done.returncode, 1)
        self.assertIn("distillation<float, target>/8/16384/graph:0: cub gives another value",
                      done.stderr)
        self.assertIn("| distillation, latents of n samples | 64, 512 |", files["report.md"])

    def test_appended(self):
        with tempfile.NamedTemporaryFile("w", suffix=".md") as file:
            file.write("## Beside PyTorch\n")
            file.flush()
            _, files = report({"bench_cuda_losses_distillation": [latents(8, median_us=5.0)]},
                              "--append", file.name)
        self.assertIn("## Beside PyTorch", files["report.md"].splitlines())


if __name__ == "__main__":
    unittest.main()
