#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The losses and the noising of addloss against the same in PyTorch, on the CPU.

usage: compare_with_torch.py [library] [--turns N] [--threads N ...] [--no-compile]
                             [--markdown FILE]

library: the shared library of the target bench_loss_library, by default
build/bench/bin/libbench_loss.so. Needs PyTorch: pip install torch numpy.

Both work on the same numbers, and give the loss and its gradient. First the results are compared,
each with PyTorch in double; an error of ours above 1e-5 ends the program with status 1. Then all run
in turns: ours, PyTorch eagerly and compiled by torch.compile, each of these in the faster of two
ways: the gradient by autograd, or written out by hand. Each number of threads has a process of its
own, since OpenMP and malloc read their settings when a program starts.
"""

import argparse
import ctypes
import json
import os
import statistics
import sys

import torch_turns

LATENTS, IMAGES = (8, 4, 64, 64), (8, 3, 512, 512)
HEADS, TOKENS, FEATURES = 5, (8, 257), (8, 384, 197)
GUIDANCE, GAMMA = 7.5, 1e-5
TOLERANCE = 1e-5
CASES = {  # title: the loss, shape of a tensor
    "distillation, latents": ("distillation", LATENTS),
    "distillation, images": ("distillation", IMAGES),
    "distillation from the teacher, latents": ("from_teacher", LATENTS),
    "hinge, 5 heads": ("hinge", (HEADS, *TOKENS)),
    "relativistic loss, 5 heads": ("relativistic", (HEADS, *TOKENS)),
    "R1, 5 heads": ("r1", (HEADS, *FEATURES)),
    "noising, stored noise, latents": ("add_noise", LATENTS),
    "noising, generated noise, latents": ("add_generated_noise", LATENTS),
}


class Data:
    """Arrays of one case, in double; ours and PyTorch's floats are made of them."""

    def __init__(self, name, shape):
        import torch

        torch.manual_seed(0)
        self.name, self.shape = name, shape
        # Rounded to float, so that all read the same numbers.
        self.inputs = [torch.randn(shape).double() for _ in range(4)]
        self.timesteps = torch.randint(1, 1000, shape[:1])


class Ours:
    def __init__(self, path, threads, data):
        import numpy

        self.calls = ctypes.CDLL(path)
        self.calls.loss_compiler.restype = ctypes.c_char_p
        self.compiler = self.calls.loss_compiler().decode()
        self.inputs = [x.float().numpy() for x in data.inputs]
        self.timesteps = data.timesteps.numpy()
        self.outputs = [numpy.full(data.shape, numpy.nan, numpy.float32) for _ in range(2)]
        self.call = self.bind(data, threads)

    def levels(self):
        """alpha and sigma of all timesteps."""
        import numpy

        alpha, sigma = numpy.zeros(1000), numpy.zeros(1000)
        self.calls.loss_levels(*(ctypes.c_void_p(a.ctypes.data) for a in (alpha, sigma)))
        return alpha, sigma

    def bind(self, data, threads):
        """A call with its arguments made ready: returns the loss, if there is one."""
        a, b, c, d = (ctypes.c_void_p(x.ctypes.data) for x in self.inputs)
        t = ctypes.c_void_p(self.timesteps.ctypes.data)
        first, second = (ctypes.c_void_p(x.ctypes.data) for x in self.outputs)
        long, double = ctypes.c_int64, ctypes.c_double
        shape = data.shape
        batch = long(shape[0])
        size = long(self.inputs[0][0].size)
        of_heads = (ctypes.c_int(shape[0]), long(shape[1]), long(self.inputs[0][0, 0].size))
        name = "add_noise" if data.name == "add_generated_noise" else data.name
        arguments = {
            "distillation": (a, b, t, first, batch, size),
            "from_teacher": (a, b, c, d, double(GUIDANCE), t, first, batch, size),
            "hinge": (a, b, first, second, *of_heads),
            "relativistic": (a, b, first, second, *of_heads),
            "r1": (a, double(GAMMA), first, *of_heads),
            "add_noise": (a, b, t, first, batch, size),
            "add_generated_noise": (a, None, t, first, batch, size),
        }[data.name]
        function = getattr(self.calls, f"loss_{name}")
        function.restype = None if name == "add_noise" else double
        threads = ctypes.c_int(threads)
        return lambda: function(threads, *arguments)

    def results(self):
        """The loss, or None, and what was written."""
        loss = self.call()
        return loss, [x for x in self.outputs if not (x != x).all()]


class Theirs:
    """`by_autograd` and `by_hand`: functions of tensors that give the loss and the gradients."""

    def __init__(self, data, levels, dtype):
        import torch

        alpha, sigma = (torch.from_numpy(x)[data.timesteps[: data.shape[0]]] for x in levels)
        per_sample = (-1, *[1] * (len(data.shape) - 1))
        self.alpha = alpha.to(dtype).reshape(per_sample)
        self.sigma = sigma.to(dtype).reshape(per_sample)
        self.inputs = [x.to(dtype) for x in data.inputs]
        self.loss, self.hand, self.differentiated = getattr(self, data.name)()

    def distillation(self):
        def loss(x, y):
            return (self.alpha * (x - y).square()).mean()

        def by_hand(x, y):
            difference = x - y
            weighted = self.alpha * difference
            return (weighted * difference).mean(), weighted * (2 / x.numel())

        return loss, by_hand, 1

    def from_teacher(self):
        scale = self.sigma / self.alpha

        def residual(noise, conditional, unconditional):
            guided = unconditional + GUIDANCE * (conditional - unconditional)
            return scale * (guided - noise)

        def loss(x, noise, conditional, unconditional):
            x_t = self.alpha * x.detach() + self.sigma * noise
            guided = unconditional + GUIDANCE * (conditional - unconditional)
            target = (x_t - self.sigma * guided) / self.alpha
            return (self.alpha * (x - target).square()).mean()

        def by_hand(x, noise, conditional, unconditional):
            r = residual(noise, conditional, unconditional)
            weighted = self.alpha * r
            return (weighted * r).mean(), weighted * (2 / x.numel())

        return loss, by_hand, 1

    def hinge(self):
        import torch

        def loss(real, fake):
            return (torch.relu(1 - real).mean((1, 2)) + torch.relu(1 + fake).mean((1, 2))).sum()

        def by_hand(real, fake):
            step = HEADS / real.numel()
            return loss(real, fake), (real < 1) * -step, (fake > -1) * step

        return loss, by_hand, 2

    def relativistic(self):
        import torch

        def loss(real, fake):
            return torch.nn.functional.softplus(fake - real).mean((1, 2)).sum()

        def by_hand(real, fake):
            d = fake - real
            g = torch.sigmoid(d) * (HEADS / d.numel())
            return torch.nn.functional.softplus(d).mean((1, 2)).sum(), -g, g

        return loss, by_hand, 2

    def r1(self):
        batch = FEATURES[0]

        def loss(g):
            return g.square().sum() * (GAMMA / batch)

        def by_hand(g):
            return loss(g), g * (2 * GAMMA / batch)

        return loss, by_hand, 1

    def add_noise(self):
        def by_hand(x0, noise):
            return None, self.alpha * x0 + self.sigma * noise

        return None, by_hand, 0

    def add_generated_noise(self):
        import torch

        def by_hand(x0):
            return None, self.alpha * x0 + self.sigma * torch.randn_like(x0)

        return None, by_hand, 0

    def ways(self, compiled):
        """name -> a call that gives the loss and the gradients."""
        import torch

        compile_it = torch.compile if compiled else lambda f: f
        result = {}
        hand = compile_it(self.hand)
        used = self.inputs[: self.hand.__code__.co_argcount]

        def by_hand():
            with torch.inference_mode():
                return hand(*used)

        result["by hand"] = by_hand
        if self.loss:
            loss = compile_it(self.loss)
            count = self.differentiated
            variables = [x.clone().requires_grad_() for x in used[:count]]

            def by_autograd():
                value = loss(*variables, *used[count:])
                return value.detach(), *torch.autograd.grad(value, variables)

            result["autograd"] = by_autograd
        return result


def largest_error(ours, theirs):
    """Of loss and gradients in l2, relative, against PyTorch's."""
    import numpy

    loss, written = ours
    expected, *gradients = theirs
    errors = [] if expected is None else [abs(loss - float(expected)) / abs(float(expected))]
    assert len(written) == len(gradients)
    for x, y in zip(written, gradients):
        y = y.numpy()
        errors.append(float(numpy.linalg.norm(x - y) / numpy.linalg.norm(y)))
    return max(e if e == e else float("inf") for e in errors)


def worker_compare(options):
    import torch

    rows = {}
    for title, (name, shape) in CASES.items():
        if name == "add_generated_noise":
            continue  # other random numbers
        data = Data(name, shape)
        ours = Ours(options.path_of_library, options.threads, data)
        levels = ours.levels()
        exact = Theirs(data, levels, torch.float64).ways(False)
        single = Theirs(data, levels, torch.float32).ways(False)
        for way, call in exact.items():
            reference = [None if x is None else x.double() for x in call()]
            floats = single[way]()
            loss = None if floats[0] is None else float(floats[0])
            theirs = (loss, [x.numpy() for x in floats[1:]])
            rows[f"{title}, {way}"] = (largest_error(ours.results(), reference),
                                       largest_error(theirs, reference))
    print(json.dumps({"rows": rows, "torch": torch.__version__, "compiler": ours.compiler}))


def worker_time(options):
    import torch

    torch.set_num_threads(options.threads)
    ctypes.CDLL(options.path_of_library)
    torch_turns.wait_passively_if_two_runtimes()
    rows = {}
    for title, (name, shape) in CASES.items():
        data = Data(name, shape)
        ours = Ours(options.path_of_library, options.threads, data)
        theirs = Theirs(data, ours.levels(), torch.float32)
        runs, ways = {"ours": ours.call}, {}
        for kind in ("eager",) if options.no_compile else ("eager", "compiled"):
            calls = theirs.ways(kind == "compiled")
            for call in calls.values():
                call()
            ways[kind] = min(calls, key=lambda way: min(
                torch_turns.seconds(calls[way], 3) for _ in range(5)))
            runs[kind] = calls[ways[kind]]
        rows[title] = torch_turns.take_turns(runs, options.turns) | {"ways": ways}
    print(json.dumps({"rows": rows, "runtimes": torch_turns.openmp_runtimes(),
                      "policy": os.environ.get("OMP_WAIT_POLICY", "default")}))


def call_worker(options, worker, threads):
    arguments = [options.path_of_library, "--worker", worker, "--turns", options.turns]
    if options.no_compile:
        arguments.append("--no-compile")
    return torch_turns.call_worker(__file__, threads, True, *arguments)


def table_of_times(threads, result):
    kinds = next(iter(result["rows"].values()))["ways"]
    head = [f"{threads} thread{'s' if threads > 1 else ''}", "ours", *kinds, "cores"]
    table = []
    for title, row in result["rows"].items():
        times = row["times"]
        cells = [title, f"{1e6 * statistics.median(times['ours']):.1f} us"]
        for kind, way in row["ways"].items():
            ratio = statistics.median(t / o for t, o in zip(times[kind], times["ours"]))
            cells.append(f"{1e6 * statistics.median(times[kind]):.1f} us ({ratio:.1f} x), {way}")
        cores = " ".join(f"{row['cores'][name]:.2f}" for name in times)
        table.append([*cells, cores])
    return head, table


def print_table(head, table):
    widths = [max(len(line[i]) for line in [head, *table]) for i in range(len(head))]
    for line in [head, *table]:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
    print()


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path_of_library", metavar="library", nargs="?",
                        default="build/bench/bin/libbench_loss.so")
    parser.add_argument("--turns", type=int, default=101)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--no-compile", action="store_true", help="torch runs eagerly only")
    parser.add_argument("--markdown", metavar="FILE", help="also write the tables there")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.path_of_library = os.path.abspath(options.path_of_library)
    if options.worker:
        options.threads = options.threads[0]
        return {"compare": worker_compare, "time": worker_time}[options.worker](options)
    if not os.path.exists(options.path_of_library):
        sys.exit(f"no {options.path_of_library}: build the target bench_loss_library")

    compared = call_worker(options, "compare", max(options.threads))
    about = (f"{torch_turns.chip()}, {os.cpu_count()} cores; PyTorch {compared['torch']}; addloss "
             f"compiled by {compared['compiler']}; float")
    print(about)
    print("\nRelative errors (l2) against PyTorch in double: ours, PyTorch's in float")
    for title, (ours, theirs) in compared["rows"].items():
        print(f"{title:52} {ours:9.1e} {theirs:9.1e}")
    if max(ours for ours, _ in compared["rows"].values()) > TOLERANCE:
        sys.exit("the results differ")
    print(f"\n{options.turns} turns, medians; x: PyTorch / ours; cores: CPU time by time\n")
    markdown = ["## Against PyTorch", "", about, ""]
    for threads in options.threads:
        result = call_worker(options, "time", threads)
        head, table = table_of_times(threads, result)
        print_table(head, table)
        print(f"OpenMP: {', '.join(result['runtimes'])}; waiting: {result['policy']}\n")
        markdown += ["| " + " | ".join(line) + " |" for line in
                     [head, ["---"] * len(head), *table]] + [""]
    if options.markdown:
        with open(options.markdown, "w", encoding="utf-8") as file:
            file.write("\n".join(markdown))
    return None


if __name__ == "__main__":
    main()
