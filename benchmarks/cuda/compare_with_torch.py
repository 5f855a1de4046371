#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Losses and noising of addloss on a GPU against the same in PyTorch: results, then times.

usage: compare_with_torch.py [library] [--types T ...] [--only NAME ...] [--turns N] [--no-compile]

library: the shared library of the target bench_cuda_library, by default
build/bench-cuda/bin/libbench_cuda.so. Needs PyTorch with CUDA.

Both work on the same tensors. First the results of ours are compared with PyTorch's in double; too
large an error ends the program with status 1. (Generated noise has no counterpart: its mean and
variance are looked at.) Then both run in turns, timed by CUDA events: eager, compiled by
torch.compile, and for small tensors the compiled step captured in a CUDA graph, as ours is.
Gradients are part of every step but the noising. Large tensors take several times the L2 cache.
"""

import argparse
import ctypes
import os
import statistics
import sys

import torch

from torch_graph import captured

LATENTS = (8, 4 * 64 * 64)
IMAGES = (48, 3 * 512 * 512)
SMALL_LOGITS = (8, 257)
LARGE_LOGITS = (512, 256 * 256)
FEATURES = (256, 384 * 197)
HEADS = 5
GUIDANCE = 7.5
GAMMA = 1e-3
SIZES = {"float": 4, "half": 2, "bfloat16": 2, "double": 8}
# Of a gradient in the l2 norm: rounding to the storage type, and a little of float's arithmetic.
TOLERANCES = {"float": 2e-6, "half": 6e-4, "bfloat16": 5e-3, "double": 1e-12}
VALUE_TOLERANCE = 1e-5
LARGE = 16 << 20  # bytes of a tensor from which on a case counts as large


def wide(x):
    """Sums of half types are formed in float, as training code does."""
    return x.float() if x.dtype in (torch.float16, torch.bfloat16) else x


def levels(device):
    """Alpha and sigma of Stable Diffusion's scaled linear schedule."""
    betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64).square()
    squared = torch.cumprod(1 - betas, 0)
    return torch.stack([squared.sqrt(), (1 - squared).sqrt()], 1).contiguous().to(device)


class Case:
    """One step, ours and PyTorch's. `forward(*inputs)` gives what is written where there is no
    gradient, else the loss, which is differentiated with respect to the first `variables`
    inputs."""

    variables = 0
    tensors_moved = 0  # read and written by a call of ours, in tensors of `shape`
    checked = True

    def __init__(self, kind, shape, device="cuda"):
        self.kind, self.shape, self.device = kind, shape, device
        self.dtype = getattr(torch, kind)
        generator = torch.Generator(device).manual_seed(1)
        self.inputs = [
            torch.randn(shape, generator=generator, device=device).to(self.dtype)
            for _ in range(self.input_count)
        ]
        self.outputs = [torch.empty_like(self.inputs[0]) for _ in range(self.output_count)]
        self.value = torch.zeros((), dtype=torch.float64, device=device)
        self.levels = levels(device)
        self.t = torch.randint(0, 1000, shape[:1], generator=generator, device=device)
        # Gradients of a mean over so many elements would be too small for half types.
        self.scale = float(shape[0] * shape[1])
        for x in self.inputs[: self.variables]:
            x.requires_grad_()

    def bytes_of_tensor(self):
        return self.shape[0] * self.shape[1] * SIZES[self.kind]

    def is_large(self):
        return self.bytes_of_tensor() >= LARGE

    def schedule(self, dtype):
        """Alpha and sigma of the samples, [B, 1]."""
        pair = self.table(dtype)[self.t]
        return pair[:, :1], pair[:, 1:]

    def table(self, dtype):
        if dtype not in self.tables:
            self.tables[dtype] = self.levels.to(dtype)
        return self.tables[dtype]

    def step(self, forward=None):
        """The step in PyTorch: what is written, gradients in the order of the outputs."""
        forward = forward or self.forward
        if self.variables == 0:
            return None, [forward(*self.inputs)]
        loss = forward(*self.inputs)
        return loss, torch.autograd.grad(loss, self.inputs[: self.variables], self.seed(loss))

    def seed(self, loss):
        if loss.dtype not in self.seeds:
            self.seeds[loss.dtype] = torch.full_like(loss, self.scale)
        return self.seeds[loss.dtype]

    def reference(self):
        inputs = [x.detach().double() for x in self.inputs]
        for x in inputs[: self.variables]:
            x.requires_grad_()
        if self.variables == 0:
            return None, [self.forward(*inputs)]
        loss = self.forward(*inputs)
        return loss, torch.autograd.grad(loss, inputs[: self.variables],
                                         torch.full_like(loss, self.scale))

    def bind(self, library):
        self.tables, self.seeds = {}, {}
        if library is not None:
            self.calls = library
            self.call = self.make_call(library)

    def run(self):
        self.calls.run_call(self.call, torch.cuda.current_stream().cuda_stream)

    def common(self):
        return [self.kind.encode(), self.shape[0], self.shape[1], self.levels.data_ptr(), 1000,
                self.t.data_ptr()]

    def in_arithmetic(self, x):
        return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


class Distillation(Case):
    title = "distillation from a target"
    input_count, output_count, variables, tensors_moved = 2, 1, 1, 3

    def forward(self, student, target):
        alpha, _ = self.schedule(self.in_arithmetic(student))
        distance = (wide(student) - wide(target)).square().mean(1)
        return (alpha[:, 0] * distance).mean()

    def make_call(self, library):
        return library.distillation_call(
            *self.common(), *(x.data_ptr() for x in self.inputs), ctypes.c_double(self.scale),
            self.value.data_ptr(), self.outputs[0].data_ptr())


class Teacher(Case):
    title = "distillation from a teacher, guided"
    input_count, output_count, variables, tensors_moved = 4, 1, 1, 5

    def forward(self, student, noise, conditional, unconditional):
        alpha, sigma = self.schedule(self.in_arithmetic(student))
        student, noise = wide(student), wide(noise)
        conditional, unconditional = wide(conditional), wide(unconditional)
        x_t = alpha * student.detach() + sigma * noise
        v = unconditional + GUIDANCE * (conditional - unconditional)
        target = alpha * x_t - sigma * v
        return (alpha[:, 0] * (student - target).square().mean(1)).mean()

    def make_call(self, library):
        return library.teacher_call(
            *self.common(), *(x.data_ptr() for x in self.inputs), ctypes.c_double(GUIDANCE),
            ctypes.c_double(self.scale), self.value.data_ptr(), self.outputs[0].data_ptr())


class Noising(Case):
    title = "noising, stored noise"
    input_count, output_count, tensors_moved = 2, 1, 3

    def forward(self, x0, noise):
        alpha, sigma = self.schedule(x0.dtype)
        return alpha * x0 + sigma * noise

    def make_call(self, library):
        return library.noising_call(*self.common(), *(x.data_ptr() for x in self.inputs),
                                    self.outputs[0].data_ptr())


class GeneratedNoising(Noising):
    title = "noising, generated noise"
    input_count, output_count, tensors_moved = 1, 1, 2
    checked = False

    def forward(self, x0):
        alpha, sigma = self.schedule(x0.dtype)
        return alpha * x0 + sigma * torch.randn_like(x0)

    def make_call(self, library):
        return library.noising_call(*self.common(), self.inputs[0].data_ptr(), None,
                                    self.outputs[0].data_ptr())

    def moments(self):
        alpha, sigma = self.schedule(torch.float64)
        noise = (self.outputs[0].double() - alpha * self.inputs[0].double()) / sigma
        return noise.mean().item(), noise.var().item()


class HeadsCase(Case):
    def pointers(self, tensors):
        return (ctypes.c_void_p * len(tensors))(*(x.data_ptr() for x in tensors))


class Hinge(HeadsCase):
    title = f"hinge, {HEADS} heads, gradients of both sides"
    input_count, output_count = 2 * HEADS, 2 * HEADS
    variables, tensors_moved = 2 * HEADS, 4 * HEADS

    def forward(self, *logits):
        loss = 0
        for real, fake in zip(logits[:HEADS], logits[HEADS:]):
            loss = loss + torch.relu(1 - real).mean() + torch.relu(1 + fake).mean()
        return loss

    def make_call(self, library):
        real, fake = self.pointers(self.inputs[:HEADS]), self.pointers(self.inputs[HEADS:])
        real_gradient = self.pointers(self.outputs[:HEADS])
        fake_gradient = self.pointers(self.outputs[HEADS:])
        return library.hinge_call(self.kind.encode(), HEADS, *self.shape, real, fake,
                                  ctypes.c_double(self.scale), self.value.data_ptr(),
                                  real_gradient, fake_gradient)


class Penalty(HeadsCase):
    title = f"R1, {HEADS} heads, with cotangents"
    input_count, output_count, variables, tensors_moved = HEADS, HEADS, HEADS, 2 * HEADS

    def forward(self, *features):
        return GAMMA * sum(wide(g).square().sum(1).mean() for g in features)

    def make_call(self, library):
        return library.r1_call(self.kind.encode(), HEADS, *self.shape, self.pointers(self.inputs),
                               ctypes.c_double(GAMMA), ctypes.c_double(self.scale),
                               self.value.data_ptr(), self.pointers(self.outputs))


CASES = {
    "distillation": (Distillation, LATENTS, IMAGES),
    "teacher": (Teacher, LATENTS, IMAGES),
    "noising": (Noising, LATENTS, IMAGES),
    "generated": (GeneratedNoising, LATENTS, IMAGES),
    "hinge": (Hinge, SMALL_LOGITS, LARGE_LOGITS),
    "r1": (Penalty, None, FEATURES),
}


def load(path):
    library = ctypes.CDLL(path)
    pointer, long, double, text = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double, ctypes.c_char_p
    common = [text, long, long, pointer, long, pointer]
    heads = [text, ctypes.c_int, long, long]
    for name, arguments in (
        ("distillation_call", common + [pointer] * 2 + [double] + [pointer] * 2),
        ("teacher_call", common + [pointer] * 4 + [double] * 2 + [pointer] * 2),
        ("noising_call", common + [pointer] * 3),
        ("hinge_call", heads + [pointer] * 2 + [double] + [pointer] * 3),
        ("r1_call", heads + [pointer] + [double] * 2 + [pointer] * 2),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = pointer, arguments
    library.run_call.restype, library.run_call.argtypes = None, [pointer, pointer]
    return library


def difference(ours, expected):
    ours, expected = ours.detach().double().flatten(), expected.detach().double().flatten()
    return ((ours - expected).norm() / expected.norm()).item()


def compare(case):
    """Errors of ours and of PyTorch: of the value, and the largest of the tensors written."""
    case.run()
    if not case.checked:
        mean, variance = case.moments()
        good = abs(mean) < 2e-2 and abs(variance - 1) < 2e-2
        return good, f"mean {mean:.1e}, variance {variance:.4f}"
    value, written = case.reference()
    their_value, theirs = case.step()
    tensors = max(difference(a, b) for a, b in zip(case.outputs, written))
    their_tensors = max(difference(a, b) for a, b in zip(theirs, written))
    good = tensors <= TOLERANCES[case.kind]
    report = f"{tensors:.1e} ({their_tensors:.1e})"
    if value is not None:
        error = difference(case.value, value)
        good = good and error <= VALUE_TOLERANCE
        report += f", value {error:.1e} ({difference(their_value, value):.1e})"
    return good, report


def microseconds(function, calls):
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    for _ in range(calls):
        function()
    end.record()
    end.synchronize()
    return 1e3 * begin.elapsed_time(end) / calls


def time_case(case, turns, compiles):
    """Medians over the turns, in microseconds."""
    ways = {"ours": case.run, "eager": case.step}
    if compiles:
        torch._dynamo.reset()
        forward = torch.compile(case.forward, dynamic=False)
        ways["compile"] = lambda: case.step(forward)
    if case.is_large():
        source, to = case.inputs[0].detach(), case.outputs[0]
        ways["copy"] = lambda: to.copy_(source)
    else:
        ways["ours_graph"] = captured(case.run)
        if compiles:
            ways["compile_graph"] = captured(ways["compile"])
    calls = 5 if case.is_large() else 100
    for function in ways.values():
        for _ in range(3):
            function()
    torch.cuda.synchronize()
    times = {name: [] for name in ways}
    for _ in range(turns):
        for name, function in ways.items():
            times[name].append(microseconds(function, calls))
    return {name: statistics.median(row) for name, row in times.items()}


def print_row(case, times):
    def gain(rival, ours="ours"):
        if rival not in times:
            return f"{'-':>18}"
        return f"{times[rival]:10.1f} {times[rival] / times[ours]:6.2f}x"

    bytes_moved = case.tensors_moved * case.bytes_of_tensor()
    shape = "x".join(map(str, case.shape))
    row = f"{case.title:44} {case.kind:9} {shape:11} {times['ours']:9.1f}"
    row += f" {gain('eager')} {gain('compile')}"
    row += f" {1e-3 * bytes_moved / times['ours']:7.0f}"
    if "copy" in times:
        speed = 2 * case.bytes_of_tensor() / times["copy"]
        row += f" {bytes_moved / times['ours'] / speed:5.2f}"
    else:
        row += f" {'':5} {times['ours_graph']:7.1f} {gain('compile_graph', 'ours_graph')}"
    print(row, flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path_of_library", metavar="library", nargs="?",
                        default="build/bench-cuda/bin/libbench_cuda.so")
    parser.add_argument("--types", nargs="+", default=["float", "bfloat16"], choices=SIZES)
    parser.add_argument("--only", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--turns", type=int, default=11)
    parser.add_argument("--no-compile", action="store_true", help="torch runs eagerly only")
    options = parser.parse_args()
    if not os.path.exists(options.path_of_library):
        sys.exit(f"no {options.path_of_library}: build the target bench_cuda_library")
    if not torch.cuda.is_available():
        sys.exit("PyTorch sees no GPU")
    library = load(os.path.abspath(options.path_of_library))
    torch.backends.cuda.matmul.allow_tf32 = False

    print(f"{torch.cuda.get_device_name()}; PyTorch {torch.__version__}, "
          f"CUDA {torch.version.cuda}")
    print("us a call (medians), and PyTorch's time by ours; GB/s and share of a copy's speed of "
          "ours; graph: captured")
    print(f"{'':44} {'type':9} {'shape':11} {'ours':>9} {'eager':>18} {'compile':>18} {'GB/s':>7} "
          f"{'copy':>5} {'graph':>7} {'compile, graph':>18}")
    errors = []
    for name in options.only:
        make, small, large = CASES[name]
        for shape in (small, large):
            # Small tensors take what a launch takes, of whatever type.
            for kind in options.types if shape == large else options.types[:1]:
                if shape is None:
                    continue
                case = make(kind, shape)
                case.bind(library)
                good, report = compare(case)
                errors.append((good, f"{case.title:44} {kind:9} {report}"))
                print_row(case, time_case(case, options.turns, not options.no_compile))
                del case
                torch.cuda.empty_cache()
    print("\nRelative errors (l2) of ours, and of PyTorch in brackets, against PyTorch in double")
    for _, report in errors:
        print(report)
    if not all(good for good, _ in errors):
        sys.exit("the results differ")


if __name__ == "__main__":
    main()
