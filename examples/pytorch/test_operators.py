# SPDX-License-Identifier: MIT
"""The operators against plain PyTorch code and torch's own checks of gradients.

    python3 test_operators.py <library>
"""
import sys
import unittest

import torch
import torch.nn.functional as F
from torch.autograd import gradcheck, gradgradcheck

import losses
import train

LEVELS = losses.cosine_levels()
TIMES = torch.tensor([10, 500, 900])


def numbers(*shape, phase=0.0, dtype=torch.float64):
    count = torch.Size(shape).numel()
    return (1.7 * torch.sin(0.7 * torch.arange(count, dtype=torch.float64) + phase)).view(shape).to(dtype)


def wanted(*tensors):
    return [x.clone().requires_grad_() for x in tensors]


def gradients_of(loss, inputs):
    return torch.autograd.grad(3 * loss, inputs)  # an upstream gradient of 3


class Operators(unittest.TestCase):
    def agree(self, ours, plain, inputs):
        for dtype, rtol in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
            x = wanted(*[i.to(dtype) for i in inputs])
            y = wanted(*[i.to(dtype) for i in inputs])
            torch.testing.assert_close(ours(*x), plain(*y), rtol=rtol, atol=rtol)
            for got, expected in zip(gradients_of(ours(*x), x), gradients_of(plain(*y), y)):
                torch.testing.assert_close(got, expected, rtol=rtol, atol=rtol)

    def differentiable(self, function, inputs):
        x = wanted(*inputs)
        self.assertTrue(gradcheck(function, x))
        self.assertTrue(gradgradcheck(function, x))

    def test_distillation(self):
        target = numbers(3, 2, 4, phase=1)

        def ours(x):
            return losses.distillation(x, target.to(x.dtype), TIMES, LEVELS)

        def plain(x):
            weight = LEVELS[TIMES, 0].to(x.dtype)
            return (weight * (x - target.to(x.dtype)).square().mean((1, 2))).mean()

        self.agree(ours, plain, [numbers(3, 2, 4)])
        self.differentiable(ours, [numbers(3, 2, 4)])

    def test_distillation_from_v(self):
        noise, c, u = (numbers(3, 2, 4, phase=p) for p in (1, 2, 3))

        def ours(x):
            n, p, q = (y.to(x.dtype) for y in (noise, c, u))
            return losses.distillation_from_v(x, n, p, q, 3.0, TIMES, LEVELS)

        def plain(x):
            alpha, sigma = LEVELS[TIMES].to(x.dtype).view(3, 2, 1, 1).unbind(1)
            n, p, q = (y.to(x.dtype) for y in (noise, c, u))
            v = q + 3 * (p - q)
            target = (alpha * (alpha * x + sigma * n) - sigma * v).detach()
            return (alpha.flatten() * (x - target).square().mean((1, 2))).mean()

        self.agree(ours, plain, [numbers(3, 2, 4)])

    def test_adversarial(self):
        logits = [numbers(3, 5), numbers(3, 2, phase=1), numbers(3, 5, phase=2), numbers(3, 2, phase=3)]
        for policy, loss in (("hinge", lambda z: F.relu(1 - z)), ("non_saturating", lambda z: F.softplus(-z))):
            with self.subTest(policy):
                self.agree(lambda *x: losses.discriminator(x[:2], x[2:], policy),
                           lambda *x: sum(loss(r).mean() + loss(-f).mean() for r, f in zip(x[:2], x[2:])),
                           logits)
                self.differentiable(lambda *x: losses.discriminator(x[:2], x[2:], policy), logits)
        self.agree(lambda *x: losses.generator(x), lambda *x: -sum(f.mean() for f in x), logits[:2])
        self.differentiable(lambda *x: losses.generator(x, "non_saturating"), logits[:2])

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

    def test_meta_tensors_have_shapes(self):
        x = torch.empty(3, 4, dtype=torch.half, device="meta")
        for loss in (losses.distillation(x, x, TIMES.to("meta"), LEVELS.to("meta")),
                     losses.distillation_from_v(x, x, x, x, 1.0, TIMES.to("meta"), LEVELS.to("meta")),
                     losses.generator([x]), losses.discriminator([x], [x]),
                     torch.ops.addloss.r1([x], 1.0)):
            self.assertEqual((loss.shape, loss.dtype, loss.device.type), (torch.Size([]), torch.float32, "meta"))

    def test_what_is_refused(self):
        x = numbers(3, 4)
        with self.assertRaisesRegex(RuntimeError, r"target \(expected Double, got Float\)"):
            losses.distillation(x, x.float(), TIMES, LEVELS)
        with self.assertRaisesRegex(RuntimeError, r"timesteps\[1\] \(expected 0 to 999, got 1000\)"):
            losses.distillation(x, x, torch.tensor([0, 1000, 1]), LEVELS)
        with self.assertRaisesRegex(RuntimeError, "hinge or non_saturating, got other"):
            losses.generator([x], "other")

    def test_training_lowers_the_distillation_loss(self):
        first, last = train.train(100)
        self.assertLess(last, 0.5 * first)


if __name__ == "__main__":
    losses.load(sys.argv.pop(1))
    unittest.main()
