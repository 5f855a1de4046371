#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The discriminator head of addloss against the same head in PyTorch: results, time, memory.

usage: compare_with_torch.py [library] [--turns N] [--threads N ...] [--no-compile]

library: the shared library of the target bench_head_library, by default
build/bench/bin/libbench_head.so. Needs PyTorch: pip install torch numpy.

Both get the same parameters, features and condition. First their results are compared, each with
PyTorch in double; an error of ours above 1e-4 ends the program with status 1. Then both run in turns,
PyTorch in the fastest of several ways: norm composed of single operations or F.batch_norm, oneDNN on
or off, eager or compiled. Each number of threads has a process of its own, since OpenMP and malloc
read their settings when a program starts; memory is measured with malloc's defaults.
"""

import argparse
import ctypes
import gc
import json
import math
import os
import statistics
import sys
import warnings

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
import torch_head
import torch_turns
from torch_head import CHANNELS, CONDITION, WIDTH

BATCH, LENGTH = torch_head.GROUP, 197
GAMMA = 1e-5
GAMMA_OF_COMPARISON = 0.02  # the penalty's part of the gradients then counts
TOLERANCE = 1e-4
METHODS = ("direct", "toom_cook")
STEPS = {  # name of a row: what it is, the target for torch's time by ours
    "real_side": ("reals: hinge + R1, parameter gradients", 2.9),
    "discriminator": ("reals and fakes: hinge + R1", None),
    "adversarial": ("reals: hinge, parameter gradients", 2.0),
    "generator": ("generator: loss, feature gradient", None),
    "logits": ("logits only", None),
    "discriminator_spectral": ("reals and fakes, spectral norm", None),
}


class Ours:
    """A head of the library; its arrays as numpy arrays over the same memory."""

    def __init__(self, path, threads, method, spectral):
        import numpy

        library = ctypes.CDLL(path)
        pointer, text, long = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int64
        out = ctypes.POINTER(long)
        for name, result, arguments in (
            ("head_compiler", text, []),
            ("head_create", pointer, [long] * 4 + [ctypes.c_int] * 3),
            ("head_destroy", None, [pointer]),
            ("head_array", ctypes.POINTER(ctypes.c_float), [pointer, text, out]),
            ("head_parameters", ctypes.c_int, [pointer]),
            ("head_parameter", text, [pointer, ctypes.c_int, out, out]),
            ("head_run", ctypes.c_double, [pointer, text, ctypes.c_double]),
            ("head_update_state", None, [pointer]),
            ("head_workspace_bytes", long, [pointer, text]),
        ):
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
        self.steps = library
        self.compiler = library.head_compiler().decode()
        self.head = library.head_create(
            BATCH, CHANNELS, LENGTH, CONDITION, threads, method == "toom_cook", spectral
        )
        self.arrays = {}
        for name in ("parameters", "gradients", "state", "real", "fake", "feature_gradients",
                     "condition", "logits"):
            size = long()
            data = library.head_array(self.head, name.encode(), size)
            self.arrays[name] = (
                numpy.ctypeslib.as_array(data, (size.value,)) if size.value else None
            )
        self.parts = {}
        for i in range(library.head_parameters(self.head)):
            offset, size = long(), long()
            name = library.head_parameter(self.head, i, offset, size).decode()
            self.parts[name.removeprefix("0.")] = slice(offset.value, offset.value + size.value)

    def close(self):
        self.steps.head_destroy(self.head)

    def run(self, step, gamma=GAMMA):
        if step.endswith("_spectral"):
            self.steps.head_update_state(self.head)
            step = step.removesuffix("_spectral")
        return self.steps.head_run(self.head, step.encode(), gamma)

    def workspace_bytes(self, step):
        return self.steps.head_workspace_bytes(
            self.head, step.removesuffix("_spectral").encode()
        )

    def take(self, theirs):
        """The parameters, the state and the data of the head in PyTorch."""
        parameters = dict(theirs.head.named_parameters())
        assert set(parameters) == set(self.parts), (set(parameters) ^ set(self.parts))
        for name, part in self.parts.items():
            self.arrays["parameters"][part] = parameters[name].detach().flatten().numpy()
        for name in ("real", "fake", "condition"):
            self.arrays[name][:] = getattr(theirs, name).flatten().numpy()
        if self.arrays["state"] is not None:
            states = [
                vector.numpy()
                for module in theirs.head.normalised()
                for vector in (module.u, module.v)
            ]
            begin = 0
            for vector in states:
                self.arrays["state"][begin : begin + vector.size] = vector
                begin += vector.size
            assert begin == self.arrays["state"].size


class Theirs:
    """The steps in PyTorch."""

    def __init__(self, norm="batch_norm", spectral=False, double=False, compiled=False,
                 onednn=True):
        import torch

        self.torch = torch
        warnings.filterwarnings("ignore", message="TF32 acceleration")
        torch.manual_seed(0)
        dtype = torch.float64 if double else torch.float32
        self.head = torch_head.define()(norm, spectral)
        self.real = torch.randn(BATCH, CHANNELS, LENGTH)
        self.fake = 0.5 + torch.randn(BATCH, CHANNELS, LENGTH)
        self.condition = torch.randn(BATCH, CONDITION)
        self.head.to(dtype)
        self.real, self.fake = self.real.to(dtype), self.fake.to(dtype)
        self.condition = self.condition.to(dtype)
        self.parameters = list(self.head.parameters())
        self.call = torch.compile(self.head) if compiled else self.head
        self.onednn = onednn
        self.way = ", ".join((norm, "compiled" if compiled else "eager",
                              "oneDNN" if onednn else "no oneDNN"))

    def run(self, step, gamma=GAMMA):
        """The loss and the gradients, or the logits."""
        with self.torch.backends.mkldnn.flags(enabled=self.onednn):
            if step.endswith("_spectral"):
                for module in self.head.normalised():
                    module.update()
                step = step.removesuffix("_spectral")
            return getattr(self, step)(gamma)

    def hinge_and_r1(self, gamma):
        x = self.real.detach().requires_grad_()
        logits = self.call(x, self.condition)
        (v,) = self.torch.autograd.grad(logits.sum(), x, create_graph=True)
        hinge = self.torch.relu(1 - logits).mean()
        return hinge + gamma * v.square().sum((1, 2)).mean()

    def real_side(self, gamma):
        loss = self.hinge_and_r1(gamma)
        return loss.detach(), self.torch.autograd.grad(loss, self.parameters)

    def discriminator(self, gamma):
        loss = self.hinge_and_r1(gamma)
        loss = loss + self.torch.relu(1 + self.call(self.fake, self.condition)).mean()
        return loss.detach(), self.torch.autograd.grad(loss, self.parameters)

    def adversarial(self, _):
        loss = self.torch.relu(1 - self.call(self.real, self.condition)).mean()
        return loss.detach(), self.torch.autograd.grad(loss, self.parameters)

    def generator(self, _):
        x = self.fake.detach().requires_grad_()
        loss = -self.call(x, self.condition).mean()
        return loss.detach(), self.torch.autograd.grad(loss, x)

    def logits(self, _):
        with self.torch.inference_mode():
            return self.call(self.fake, self.condition)


def off_the_kinks(head, features, condition, label):
    """Features moved a little, so that no activation and no hinge is so near its kink that rounding
    decides on its side: the gradient jumps there, and one side is as right as the other."""
    import torch

    margin = 2e-5
    x = features.clone()
    for _ in range(40):
        x.requires_grad_()
        kinks = []
        hooks = [
            block.norm.register_forward_hook(lambda _module, _in, out: kinks.append(out.clone()))
            for block in (head.first, head.residual)
        ]
        kinks.append(1 - label * head(x, condition))
        for hook in hooks:
            hook.remove()
        distance = torch.cat([k.flatten() for k in kinks])
        near = distance[distance.abs() < margin]
        if near.numel() == 0:
            return x.detach()
        (g,) = torch.autograd.grad((near * near.detach().sign()).sum(), x)
        x = (x + 4 * margin * near.numel() / g.square().sum() * g).detach().float().double()
    sys.exit("some activations stay at their kinks")


def worker_compare(options):
    import numpy
    import torch

    torch.set_num_threads(options.threads)

    def difference(a, reference):
        return float(numpy.linalg.norm(a.astype(numpy.float64) - reference))

    def flat(tensor):
        return tensor.detach().flatten().numpy()

    def results_of_theirs(theirs, step):
        """name: (values, what their error is relative to)"""
        result = theirs.run(step, GAMMA_OF_COMPARISON)
        if step == "logits":
            return {"logits": flat(result)}
        loss, gradients = result
        named = {"loss": flat(loss)}
        if step == "generator":
            return named | {"features": flat(gradients[0])}
        names = [name for name, _ in theirs.head.named_parameters()]
        return named | {name: flat(g) for name, g in zip(names, gradients)}

    def results_of_ours(ours, step):
        ours.arrays["gradients"][:] = numpy.nan  # a step overwrites
        loss = ours.run(step, GAMMA_OF_COMPARISON)
        if step == "logits":
            return {"logits": ours.arrays["logits"].copy()}
        named = {"loss": numpy.array([loss])}
        if step == "generator":
            return named | {"features": ours.arrays["feature_gradients"].copy()}
        gradients = ours.arrays["gradients"]
        return named | {name: gradients[part].copy() for name, part in ours.parts.items()}

    def scale_of(name, reference):
        # The norm takes away what the bias before it adds, so the bias' gradient is 0.
        name = name.replace("conv.bias", "norm.bias")
        return float(numpy.linalg.norm(reference[name]))

    worst, rows, data = 0.0, [], {}
    for step in STEPS:
        spectral = step.endswith("_spectral")
        if spectral not in data:
            source = Theirs(spectral=spectral, double=True)
            if spectral:
                for module in source.head.normalised():
                    module.update()  # as the step will
            data[spectral] = [
                off_the_kinks(source.head, features, source.condition, label)
                for features, label in ((source.real, 1), (source.fake, -1))
            ]

        def fresh(**arguments):
            theirs = Theirs(spectral=spectral, **arguments)
            theirs.real, theirs.fake = (x.to(theirs.real.dtype) for x in data[spectral])
            return theirs

        reference = results_of_theirs(fresh(double=True, norm="composed"), step)
        single = results_of_theirs(fresh(), step)
        ours = {}
        for method in METHODS:
            head = Ours(options.path_of_library, options.threads, method, spectral)
            head.take(fresh())
            ours[method] = results_of_ours(head, step)
            head.close()
        for name, exact in reference.items():
            errors = [
                difference(values[name], exact) / scale_of(name, reference)
                for values in (ours["direct"], ours["toom_cook"], single)
            ]
            worst = max([worst] + [e if e == e else math.inf for e in errors[:2]])
            rows.append((step, name, *errors))
    penalised, plain = (
        numpy.concatenate([
            flat(g) for g in Theirs(double=True).run("real_side", gamma)[1]
        ])
        for gamma in (GAMMA_OF_COMPARISON, 0)
    )
    share = difference(penalised, plain) / float(numpy.linalg.norm(plain))
    print(json.dumps({"rows": rows, "worst": worst, "share": share, "torch": torch.__version__,
                      "compiler": head.compiler}))


def worker_time(options):
    import torch

    torch.set_num_threads(options.threads)
    heads = {
        (method, spectral): Ours(options.path_of_library, options.threads, method, spectral)
        for method in METHODS
        for spectral in (False, True)
    }
    theirs = {spectral: Theirs(spectral=spectral) for spectral in (False, True)}
    for (_, spectral), ours in heads.items():
        ours.take(theirs[spectral])
    torch_turns.wait_passively_if_two_runtimes()
    reasons = {}  # why a step of torch was not compiled

    def candidates(step, spectral):
        for norm in ("batch_norm", "composed"):
            for onednn in (True, False):
                yield Theirs(norm, spectral, onednn=onednn)
        if options.no_compile or spectral:
            return
        for norm in ("batch_norm", "composed"):
            torch.compiler.reset()
            way = Theirs(norm, compiled=True)
            try:
                way.run(step)
            except Exception as problem:
                reason = (str(problem).strip() or type(problem).__name__).splitlines()[0]
                reasons[step] = reason[:160]
                return
            yield way

    def fastest(step, spectral):
        times = []
        for way in candidates(step, spectral):
            way.run(step)
            times.append((min(torch_turns.seconds(lambda: way.run(step)) for _ in range(5)), way))
        times.sort(key=lambda entry: entry[0])
        return times[0][1]

    rows = {}
    for step in STEPS:
        spectral = step.endswith("_spectral")
        best = fastest(step, spectral)
        runs = {method: (lambda m=method: heads[m, spectral].run(step)) for method in METHODS}
        runs["torch"] = lambda: best.run(step)
        rows[step] = torch_turns.take_turns(runs, options.turns) | {"way": best.way}
    print(json.dumps({"rows": rows, "runtimes": torch_turns.openmp_runtimes(), "reasons": reasons,
                      "policy": os.environ.get("OMP_WAIT_POLICY", "default")}))


def worker_memory(options):
    """What one step adds at most to the resident memory. The first one in a program also brings in
    code and what libraries keep for later, so the second one counts."""
    import torch

    torch.set_num_threads(options.threads)
    libc = ctypes.CDLL(None)

    def status(key):
        with open("/proc/self/status", encoding="ascii") as lines:
            return next(int(l.split()[1]) / 1024 for l in lines if l.startswith(key + ":"))

    def growth(function):
        gc.collect()
        libc.malloc_trim(0)
        with open("/proc/self/clear_refs", "w", encoding="ascii") as clear:
            clear.write("5")
        before = status("VmRSS")
        kept = function()  # gradients live until the end
        peak = status("VmHWM")
        del kept
        return peak - before

    spectral = options.step.endswith("_spectral")
    if options.who == "torch":
        theirs = Theirs(spectral=spectral)
        first = growth(lambda: theirs.run(options.step))
        result = {"growth": growth(lambda: theirs.run(options.step)), "first": first}
    else:
        source = Theirs(spectral=spectral)
        for _ in range(2):  # its memory is touched for the first time by a step
            ours = Ours(options.path_of_library, options.threads, options.who, spectral)
            ours.take(source)
            result = {"growth": growth(lambda: ours.run(options.step)),
                      "workspace": ours.workspace_bytes(options.step) / 2**20}
            ours.close()
    print(json.dumps(result))


def call_worker(options, worker, threads, malloc_for_speed, *arguments):
    if options.no_compile:
        arguments += ("--no-compile",)
    return torch_turns.call_worker(__file__, threads, malloc_for_speed, options.path_of_library,
                                   "--worker", worker, "--turns", options.turns, *arguments)


def print_comparison(result):
    print("Relative errors (l2) against PyTorch in double, "
          f"gamma {GAMMA_OF_COMPARISON}: the penalty's part of the gradient is "
          f"{result['share']:.2f} of the hinge's")
    print(f"{'step':24} {'':28} {'direct':>9} {'toom_cook':>9} {'torch':>9}")
    for step, name, *errors in result["rows"]:
        print(f"{step:24} {name:28} " + " ".join(f"{e:9.1e}" for e in errors))
    print(f"worst of ours: {result['worst']:.1e}, allowed {TOLERANCE:.0e}\n")


def print_times(threads, result, turns):
    print(f"{threads} thread{'s' if threads > 1 else ''}, {turns} turns; ms: median (least); "
          "x: torch / ours, the median of the turns (of the least times); cores: CPU time by time")
    print(f"{'':40} {'torch':>15} {'direct':>15} {'x':>11} {'toom_cook':>15} {'x':>11} "
          f"{'cores':>14}  torch ran as")
    for step, row in result["rows"].items():
        title, target = STEPS[step]
        times = row["times"]

        def cell(name):
            return f"{1e3 * statistics.median(times[name]):8.1f} ({1e3 * min(times[name]):.1f})"

        def gain(name):
            ratio = statistics.median(t / o for t, o in zip(times["torch"], times[name]))
            return f"{ratio:5.2f} ({min(times['torch']) / min(times[name]):.2f})"

        cores = " ".join(f"{row['cores'][n]:.2f}" for n in ("torch", *METHODS))
        print(f"{title:40} {cell('torch'):>15} {cell('direct'):>15} {gain('direct'):>11} "
              f"{cell('toom_cook'):>15} {gain('toom_cook'):>11} {cores:>14}  {row['way']}"
              + (f"; target {target}" if target else ""))
    print(f"OpenMP: {', '.join(result['runtimes'])}; waiting: {result['policy']}")
    for step, reason in result["reasons"].items():
        print(f"torch.compile, {step}: {reason}")
    print()


def print_memory(options, threads):
    print("MiB that one step takes, gradients included, by the growth of the resident memory; in "
          "brackets the first step of torch, the workspace of ours")
    print(f"{'':40} {'torch':>17} {'direct':>17} {'toom_cook':>17}")
    for step, (title, _) in STEPS.items():
        cells = [f"{title:40}"]
        for who in ("torch", *METHODS):
            result = call_worker(options, "memory", threads, False, "--step", step, "--who", who)
            second = result["first" if who == "torch" else "workspace"]
            cells.append(f"{result['growth']:.1f} ({second:.1f})".rjust(17))
        print(" ".join(cells))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path_of_library", metavar="library", nargs="?", default="build/bench/bin/libbench_head.so")
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--no-compile", action="store_true", help="torch runs eagerly only")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--who", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.path_of_library = os.path.abspath(options.path_of_library)
    if options.worker:
        options.threads = options.threads[0]
        workers = {"compare": worker_compare, "time": worker_time, "memory": worker_memory}
        return workers[options.worker](options)
    if not os.path.exists(options.path_of_library):
        sys.exit(f"no {options.path_of_library}: build the target bench_head_library")

    compared = call_worker(options, "compare", max(options.threads), True)
    print(f"{torch_turns.chip()}, {os.cpu_count()} cores; PyTorch {compared['torch']}; addloss compiled by "
          f"{compared['compiler']}")
    print(f"B {BATCH}, C {CHANNELS}, L {LENGTH}, condition {CONDITION}, P {WIDTH}, float\n")
    print_comparison(compared)
    if compared["worst"] > TOLERANCE:
        sys.exit("the results differ")
    for threads in options.threads:
        print_times(threads, call_worker(options, "time", threads, True), options.turns)
    print_memory(options, min(options.threads))
    return None


if __name__ == "__main__":
    main()
