#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The discriminator's step of K heads on a GPU: addloss against PyTorch.

usage: compare_with_torch.py PROGRAM [--heads K] [--batch B] [--length L] [--spectral]

PROGRAM: cuda_head_steps. Needs PyTorch with CUDA.

The step: hinge loss of reals and fakes, R1 on the reals' features with its exact gradient (in PyTorch
by double backward), gradients of all parameters. PyTorch runs in the fastest of several ways for each
precision: eager, with the norm composed of single operations or by F.batch_norm, and with a compiled
head on the fakes' side, which has no double backward; in a CUDA graph where capture works. Prints one
line a way, and the ratio of the fastest to ours, graphs to graphs and eager to eager.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import warnings

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [os.path.join(HERE, ".."), os.path.join(HERE, "../../heads")]
import torch_head
from torch_graph import captured
from torch_head import CHANNELS, CONDITION, GROUP

GAMMA = 1e-5


class Step:
    def __init__(self, options, norm, compiled, half):
        import torch

        self.torch = torch
        torch.manual_seed(0)
        head = torch_head.define()
        self.heads = [head(norm, options.spectral).cuda() for _ in range(options.heads)]
        self.fake_calls = [torch.compile(h) if compiled else h for h in self.heads]
        self.spectral = options.spectral
        self.half = half

        def features(shift):
            return [shift + torch.randn(options.batch, CHANNELS, options.length, device="cuda")
                    for _ in self.heads]

        self.real, self.fake = features(0.0), features(0.5)
        self.condition = torch.randn(options.batch, CONDITION, device="cuda")
        self.parameters = [p for h in self.heads for p in h.parameters()]

    def __call__(self):
        torch = self.torch
        with torch.autocast("cuda", torch.bfloat16, enabled=self.half):
            loss = 0.0
            for head, fake_call, real, fake in zip(self.heads, self.fake_calls, self.real, self.fake):
                if self.spectral:
                    for module in head.normalised():
                        module.update()
                x = real.detach().requires_grad_()
                logits = head(x, self.condition)
                (v,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
                loss = loss + torch.relu(1 - logits).mean()
                loss = loss + GAMMA * v.square().sum((1, 2)).mean()
                loss = loss + torch.relu(1 + fake_call(fake, self.condition)).mean()
        return loss, torch.autograd.grad(loss, self.parameters)


def median_ms(run, count=15):
    import torch

    for _ in range(3):
        run()
    times = []
    for _ in range(count):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        run()
        end.record()
        torch.cuda.synchronize()
        times.append(begin.elapsed_time(end))
    return statistics.median(times)


def main():
    import torch

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--heads", type=int, default=5)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--length", type=int, default=257)
    parser.add_argument("--spectral", action="store_true")
    parser.add_argument("--no-compile", action="store_true")
    options = parser.parse_args()
    if options.batch % GROUP:
        sys.exit(f"--batch: a multiple of {GROUP}")
    warnings.filterwarnings("ignore")

    arguments = [options.program, "--json", "--heads", str(options.heads), "--batch",
                 str(options.batch), "--length", str(options.length)]
    output = subprocess.run(arguments + ["--spectral"] * options.spectral, check=True, text=True,
                            stdout=subprocess.PIPE).stdout
    ours = {row["precision"]: row for row in map(json.loads, output.splitlines())}
    print(f"{torch.cuda.get_device_name()}; PyTorch {torch.__version__}; K {options.heads}, "
          f"B {options.batch}, C {CHANNELS}, L {options.length}"
          f"{', spectral' if options.spectral else ''}; milliseconds a discriminator's step")
    torch.backends.cudnn.benchmark = True
    for precision in ("float", "tf32", "bfloat16"):
        torch.backends.cuda.matmul.allow_tf32 = precision != "float"
        torch.backends.cudnn.allow_tf32 = precision != "float"
        best = {"eager": math.inf, "graph": math.inf}
        for norm in ("composed", "batch_norm"):
            for compiled in (False, True)[: 1 if options.no_compile else 2]:
                step = Step(options, norm, compiled, precision == "bfloat16")
                ways = {"eager": lambda: step, "graph": lambda: captured(step)}
                for way, make in ways.items():
                    try:
                        ms = median_ms(make())
                    except Exception as error:  # a way that PyTorch does not offer here
                        print(f"  {precision:9} {norm}, fakes {'compiled' if compiled else 'eager'}, "
                              f"{way}: {type(error).__name__}: {str(error).splitlines()[0][:80]}")
                        torch.cuda.synchronize()
                        continue
                    best[way] = min(best[way], ms)
                    print(f"  {precision:9} {norm}, fakes {'compiled' if compiled else 'eager'}, "
                          f"{way}: {ms:.3f}", flush=True)
                del step
                torch.cuda.empty_cache()
        row = ours[precision]
        print(f"{precision:9} PyTorch eager {best['eager']:.3f}, ours {row['eager_ms']:.3f}: "
              f"{best['eager'] / row['eager_ms']:.2f} times; graphs {best['graph']:.3f}, "
              f"ours {row['graph_ms']:.3f}: {best['graph'] / row['graph_ms']:.2f} times; "
              f"PyTorch eager by our graph {best['eager'] / row['graph_ms']:.2f}", flush=True)


if __name__ == "__main__":
    main()
