# SPDX-License-Identifier: MIT
"""The operators against plain PyTorch code and torch's own checks of gradients.

    python3 test_operators.py <library> [--device cuda] [test]...

Exit status 77: there is no such device.
"""
import argparse
import sys
import unittest

import torch
import torch.nn.functional as F
from torch import library
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

import losses
import train

parser = argparse.ArgumentParser()
parser.add_argument("operators", help="path of libaddloss_operators.so")
parser.add_argument("--device", default="cpu")
ARGUMENTS, REST = parser.parse_known_args()
DEVICE = torch.device(ARGUMENTS.device)
if DEVICE.type == "cuda" and not torch.cuda.is_available():
    print("skipped: no GPU")
    sys.exit(77)
losses.load(ARGUMENTS.operators)

LEVELS = losses.cosine_levels(device=DEVICE)
TIMES = torch.tensor([10, 500, 900], device=DEVICE)


def numbers(*shape, phase=0.0, dtype=torch.float64):
    x = torch.arange(torch.Size(shape).numel(), dtype=torch.float64)
    return (1.7 * torch.sin(0.7 * x + phase)).view(shape).to(DEVICE, dtype)


def wanted(*tensors):
    return [x.clone().requires_grad_() for x in tensors]


def gradients_of(loss, inputs, twice=False):
    return torch.autograd.grad(3 * loss, inputs, create_graph=twice)  # an upstream gradient of 3


def calls(device=DEVICE, dtype=torch.float64, rounded=torch.float64):
    """Each operator, arguments for it, and those of them that have gradients."""
    def n(phase, requires_grad=False):
        return numbers(3, 4, phase=phase, dtype=rounded).to(device, dtype).requires_grad_(requires_grad)

    x, y, z, w = (n(phase, True) for phase in range(4))
    t, levels = TIMES.to(device), LEVELS.to(device)
    ops = torch.ops.addloss
    return [(ops.distillation, (x, n(1), t, levels, "sds"), [x]),
            (ops.distillation_from_teacher,
             (x, n(1), n(2), None, n(3), t, levels, "v", "exponential", 3.0), [x]),
            (ops.generator, ([x], "hinge"), [x]),
            (ops.discriminator, ([x, y], [z, w], "non_saturating"), [x, y, z, w]),
            (ops.relativistic_generator, ([x], [y]), [x, y]),
            (ops.relativistic_discriminator, ([x], [y]), [x, y]),
            (ops.r1, ([x, y], 0.5), [x, y]),
            (ops.approximate_r1, ([x], [y], 2.0, 8.0), [x, y])]


class Recorder(TorchDispatchMode):
    """Sees each operation, as a tracer does, and notes ours."""
    def __init__(self):
        super().__init__()
        self.ours = []

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        if operation.namespace == "addloss":
            self.ours.append(str(operation))
        return operation(*args, **(kwargs or {}))


class Operators(unittest.TestCase):
    def agree(self, ours, plain, inputs, twice=False):
        for dtype, rtol in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
            x = wanted(*[i.to(dtype) for i in inputs])
            y = wanted(*[i.to(dtype) for i in inputs])
            torch.testing.assert_close(ours(*x), plain(*y), rtol=rtol, atol=rtol)
            got, expected = gradients_of(ours(*x), x, twice), gradients_of(plain(*y), y, twice)
            torch.testing.assert_close(got, expected, rtol=rtol, atol=rtol)
            if twice:
                got, expected = (gradients_of(sum(g.square().sum() for g in gradients), of)
                                 for gradients, of in ((got, x), (expected, y)))
                torch.testing.assert_close(got, expected, rtol=rtol, atol=rtol)

    def differentiable(self, function, inputs):
        x = wanted(*inputs)
        self.assertTrue(gradcheck(function, x))
        self.assertTrue(gradgradcheck(function, x))

    def agree_and_differentiable(self, ours, plain, inputs):
        self.agree(ours, plain, inputs)
        self.differentiable(ours, inputs)

    def test_distillation(self):
        target = numbers(3, 2, 4, phase=1)

        def ours(x):
            return losses.distillation(x, target.to(x.dtype), TIMES, LEVELS)

        def plain(x):
            weight = LEVELS[TIMES, 0].to(x.dtype)
            return (weight * (x - target.to(x.dtype)).square().mean((1, 2))).mean()

        self.agree(ours, plain, [numbers(3, 2, 4)])
        self.differentiable(ours, [numbers(3, 2, 4)])

    def test_weightings(self):
        alpha, sigma = LEVELS[TIMES].unbind(1)
        snr = (alpha / sigma)**2
        target = numbers(3, 4, phase=1)
        for name, weight in (("uniform", torch.ones_like(alpha)), ("exponential", alpha),
                             ("sds", alpha * sigma / 2), ("nfsd", alpha * sigma / 2), ("snr", snr),
                             ("min_snr", snr.clamp_max(5))):
            with self.subTest(name):
                self.agree(
                    lambda x: losses.distillation(x, target.to(x.dtype), TIMES, LEVELS, name),
                    lambda x: (weight.to(x.dtype) * (x - target.to(x.dtype)).square().mean(1)).mean(),
                    [numbers(3, 4)])

    def test_distillation_from_teacher(self):
        level = LEVELS[TIMES].view(3, 2, 1)
        # x_0 of x_t and p.
        targets = {"epsilon": lambda alpha, sigma, x_t, p: (x_t - sigma * p) / alpha,
                   "v": lambda alpha, sigma, x_t, p: alpha * x_t - sigma * p,
                   "x0": lambda alpha, sigma, x_t, p: p,
                   "flow": lambda alpha, sigma, x_t, p: x_t - sigma * p}
        for prediction, target_of in targets.items():
            levels = LEVELS
            if prediction == "flow":
                levels = torch.stack([1 - LEVELS[:, 1], LEVELS[:, 1]], 1).contiguous()

            def given(x):
                return [numbers(3, 4, phase=p).to(x.dtype) for p in (1, 2, 3)]

            def ours(x):
                noise, c, u = given(x)
                return losses.distillation_from_teacher(x, c, TIMES, levels, prediction, noise, u,
                                                        guidance_scale=3.0, weighting="uniform")

            def plain(x):
                noise, c, u = given(x)
                alpha, sigma = levels[TIMES].to(x.dtype).view(3, 2, 1).unbind(1)
                target = target_of(alpha, sigma, alpha * x + sigma * noise, u + 3 * (c - u)).detach()
                return (x - target).square().mean()

            with self.subTest(prediction):
                self.agree(ours, plain, [numbers(3, 4)], twice=True)
        # The others' targets move with the student, which no difference of losses shows.
        p = numbers(3, 4, phase=1)
        self.differentiable(
            lambda x: losses.distillation_from_teacher(x, p, TIMES, LEVELS, "x0"), [numbers(3, 4)])

    def test_noise_free_score_distillation(self):
        c, u, negative = (numbers(3, 4, phase=p) for p in (1, 2, 3))
        alpha, sigma = LEVELS[TIMES].view(3, 2, 1).unbind(1)
        kept = (TIMES >= 200).view(3, 1)
        residual = sigma / alpha * (u - kept * negative + 2 * (c - u))

        def plain(x):
            return (alpha * sigma / 2 * (x - (x - residual).detach()).square()).mean()

        def ours(x):
            return losses.distillation_from_teacher(
                x, c, TIMES, LEVELS, "epsilon", unconditional=u, negative=negative, guidance_scale=2.0,
                weighting="nfsd")

        x, y = wanted(numbers(3, 4), numbers(3, 4))
        torch.testing.assert_close(ours(x), plain(y))
        torch.testing.assert_close(gradients_of(ours(x), x), gradients_of(plain(y), y))

    def test_adversarial(self):
        real, fake = [numbers(3, 5), numbers(3, 2, phase=1)], [numbers(3, 5, phase=2), numbers(3, 2, phase=3)]
        # D(real), D(fake), G(fake)
        policies = {
            "hinge": (lambda r: F.relu(1 - r), lambda f: F.relu(1 + f), torch.neg),
            "non_saturating": (lambda r: F.softplus(-r), F.softplus, lambda f: F.softplus(-f)),
            "least_squares": (lambda r: (r - 1).square(), torch.square, lambda f: (f - 1).square()),
            "wasserstein": (torch.neg, lambda f: f, torch.neg)}
        for policy, (of_real, of_fake, generator) in policies.items():
            with self.subTest(policy):
                self.agree_and_differentiable(
                    lambda *x: losses.discriminator(x[:2], x[2:], policy),
                    lambda *x: sum(of_real(r).mean() + of_fake(f).mean() for r, f in zip(x[:2], x[2:])),
                    real + fake)
                self.agree_and_differentiable(
                    lambda *x: losses.generator(x, policy),
                    lambda *x: sum(generator(f).mean() for f in x), fake)

    def test_pairs(self):
        first, second = [numbers(3, 5), numbers(3, 2, phase=1)], [numbers(3, 5, phase=2), numbers(3, 2, phase=3)]
        pairs = {losses.relativistic_discriminator: lambda r, f: F.softplus(f - r).mean(),
                 losses.relativistic_generator: lambda r, f: F.softplus(r - f).mean(),
                 losses.approximate_r1: lambda a, b: 100 * (a - b).square().sum(1).mean()}
        for loss, plain in pairs.items():
            with self.subTest(loss.__name__):
                self.agree_and_differentiable(lambda *x: loss(x[:2], x[2:]),
                                              lambda *x: sum(map(plain, x[:2], x[2:])), first + second)

    def test_r1_of_gradients(self):
        features = [numbers(2, 3, 4), numbers(2, 5, phase=1)]
        self.agree_and_differentiable(
            lambda *g: torch.ops.addloss.r1(g, 0.3),
            lambda *g: 0.3 * sum(x.flatten(1).square().sum(1).mean() for x in g), features)

    def test_r1_through_a_network(self):
        def penalty(of):
            features = numbers(2, 3, 4).requires_grad_()
            weight = numbers(3, 1, phase=1).requires_grad_()
            logits = torch.tanh(features * weight).sum(1)
            loss = of(logits, features)
            return loss, torch.autograd.grad(loss, weight)[0]

        def plain(logits, features):
            gradient, = torch.autograd.grad(logits.sum(), features, create_graph=True)
            return 0.3 * gradient.square().sum((1, 2)).mean()

        ours = penalty(lambda logits, features: losses.r1([logits], [features], 0.3))
        torch.testing.assert_close(ours, penalty(plain), rtol=1e-10, atol=1e-12)

    def test_half_types(self):
        for dtype in (torch.half, torch.bfloat16):
            for (op, arguments, inputs), (_, wide_arguments, wide) in zip(
                    calls(dtype=dtype), calls(dtype=torch.float32, rounded=dtype)):
                with self.subTest(op, dtype=dtype):
                    loss, expected = op(*arguments), op(*wide_arguments)
                    torch.testing.assert_close(loss, expected)
                    torch.testing.assert_close(gradients_of(loss, inputs),
                                               tuple(g.to(dtype) for g in gradients_of(expected, wide)))

    def test_autocast_takes_the_widest_type(self):
        narrow, wide = numbers(3, 4).bfloat16(), numbers(3, 4, phase=1).float()
        calls_of = {"distillation": lambda x: losses.distillation(x, wide, TIMES, LEVELS),
                    "discriminator": lambda x: losses.discriminator([wide, wide], [wide, x])}
        for name, loss in calls_of.items():
            with self.subTest(name):
                x, y = wanted(narrow, narrow.float())
                with self.assertRaisesRegex(RuntimeError, "expected (BFloat16, got Float|Float, got BFloat16)"):
                    loss(x)
                with torch.autocast(DEVICE.type, torch.bfloat16):
                    got = loss(x)
                expected = loss(y)
                self.assertTrue(torch.equal(got, expected))
                self.assertTrue(torch.equal(*(torch.autograd.grad(of, z)[0].bfloat16()
                                              for of, z in ((got, x), (expected, y)))))

    def check_shapes(self, device):
        for op, arguments, inputs in calls(device, torch.half):
            with self.subTest(op):
                loss = op(*arguments)
                self.assertEqual((loss.shape, loss.dtype, loss.device, loss.requires_grad),
                                 (torch.Size([]), torch.float32, inputs[0].device, True))
                for gradient, x in zip(torch.autograd.grad(loss, inputs), inputs):
                    self.assertEqual((gradient.shape, gradient.dtype, gradient.device), (x.shape, x.dtype, x.device))
                with torch.no_grad():
                    self.assertFalse(op(*arguments).requires_grad)
                with self.assertRaisesRegex(RuntimeError, "expected one derivative of what is traced, got two"):
                    torch.autograd.grad(op(*arguments), inputs, create_graph=True)

    def test_meta_tensors_have_shapes_and_gradients(self):
        self.check_shapes("meta")

    @unittest.skipUnless(hasattr(torch, "compile"), "fake tensors of a GPU need PyTorch 2")
    def test_fake_tensors_say_where_results_will_be(self):
        with FakeTensorMode(allow_non_fake_inputs=True):
            self.check_shapes(DEVICE)
            # Autograd needs a GPU for those of one.
            for op, arguments, inputs in calls("cuda", torch.half):
                loss, gradients = getattr(torch.ops.addloss, op.__name__ + "_and_gradients")(*arguments)
                with self.subTest(op):
                    self.assertEqual([str(x.device) for x in (op(*arguments), loss, *gradients)],
                                     ["cuda:0"] * (2 + len(inputs)))

    def test_a_tracer_sees_gradients_of_the_same_bits(self):
        for op, arguments, inputs in calls():
            with self.subTest(op), Recorder() as recorder:
                seen = torch.autograd.grad(3 * op(*arguments), inputs)
            self.assertEqual(recorder.ours, ["addloss." + op.__name__ + "_and_gradients.default"])
            for got, expected in zip(seen, torch.autograd.grad(3 * op(*arguments), inputs)):
                self.assertTrue(torch.equal(got, expected))

    @unittest.skipUnless(hasattr(library, "opcheck"), "opcheck needs PyTorch 2.4")
    def test_pytorch_finds_no_fault_with_the_operators(self):
        for op, arguments, _ in calls():
            with self.subTest(op):
                library.opcheck(op.default, arguments)

    @unittest.skipUnless(hasattr(torch, "compile"), "torch.compile needs PyTorch 2")
    def test_a_compiled_step_has_the_same_gradients(self):
        for op, arguments, inputs in calls():
            with self.subTest(op):
                def step(*x):
                    return 3 * op(*arguments)

                compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
                torch.testing.assert_close(torch.autograd.grad(compiled(*inputs), inputs),
                                           torch.autograd.grad(step(*inputs), inputs))

    def test_what_is_refused(self):
        x = numbers(3, 4)
        with self.assertRaisesRegex(RuntimeError, r"target \(expected Double, got Float\)"):
            losses.distillation(x, x.float(), TIMES, LEVELS)
        outside = torch.tensor([0, 1000, 1], device=DEVICE)
        if DEVICE.type == "cpu":
            with self.assertRaisesRegex(RuntimeError, r"timesteps\[1\] \(expected 0 to 999, got 1000\)"):
                losses.distillation(x, x, outside, LEVELS)
        else:
            self.assertTrue(losses.distillation(x, x, outside, LEVELS).isnan())
            with self.assertRaisesRegex(RuntimeError, r"timesteps \(expected a tensor on cuda:0, got one on cpu\)"):
                losses.distillation(x, x, TIMES.cpu(), LEVELS)
            with self.assertRaisesRegex(RuntimeError, r"expected levels on cuda:0, got levels on cpu\)"):
                losses.distillation(x, x, TIMES, LEVELS.cpu())
        with self.assertRaisesRegex(RuntimeError, "least_squares or wasserstein, got other"):
            losses.generator([x], "other")
        with self.assertRaisesRegex(RuntimeError, "snr or min_snr, got other"):
            losses.distillation(x, x, TIMES, LEVELS, "other")
        with self.assertRaisesRegex(RuntimeError, "x0 or flow, got other"):
            losses.distillation_from_teacher(x, x, TIMES, LEVELS, "other")
        with self.assertRaisesRegex(RuntimeError, r"expected epsilon, as the weighting is nfsd, got v"):
            losses.distillation_from_teacher(x, x, TIMES, LEVELS, "v", weighting="nfsd")
        with self.assertRaisesRegex(RuntimeError, r"negative \(expected a tensor, got none\)"):
            losses.distillation_from_teacher(x, x, TIMES, LEVELS, "epsilon", unconditional=x, weighting="nfsd")
        with self.assertRaisesRegex(RuntimeError, r"noise"):
            losses.distillation_from_teacher(x, x, TIMES, LEVELS, "v")

    def test_training_lowers_the_distillation_loss(self):
        for autocast in (False, True):
            with self.subTest(autocast=autocast):
                first, last = train.train(100, DEVICE, autocast)
                self.assertLess(last, 0.5 * first)


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0], *REST])
