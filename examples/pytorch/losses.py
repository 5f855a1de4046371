# SPDX-License-Identifier: MIT
"""The losses of addloss as functions of PyTorch's tensors, on the CPU.

Autograd differentiates them, twice if need be. Half types keep their gradients times `grad_scale`:
give the loss scale of a GradScaler.
"""
import math

import torch


def load(path):
    """Loads the operators: the library that the build makes of operators.cpp."""
    torch.ops.load_library(path)


def cosine_levels(timesteps=1000, offset=0.008):
    """alpha and sigma of each timestep of a cosine schedule, [T, 2]: any schedule will do."""
    t = torch.arange(1, timesteps + 1, dtype=torch.float64) / timesteps
    angle = (t + offset) / (1 + offset) * math.pi / 2
    alpha = (torch.cos(angle) / math.cos(offset / (1 + offset) * math.pi / 2)).clamp_min(1e-3)
    return torch.stack([alpha, (1 - alpha**2).clamp_min(0).sqrt()], 1).contiguous()


def distillation(student, target, timesteps, levels, grad_scale=1.0):
    """mean_b alpha_t mean (student - target)^2; the target is a constant."""
    return torch.ops.addloss.distillation(student, target, timesteps, levels, grad_scale)


def distillation_from_v(student, noise, conditional, unconditional, guidance_scale, timesteps, levels,
                        grad_scale=1.0):
    """The same from the teacher's v-predictions for alpha student + sigma noise, with guidance."""
    return torch.ops.addloss.distillation_from_v(student, noise, conditional, unconditional,
                                                 guidance_scale, timesteps, levels, grad_scale)


def generator(fake, policy="hinge", grad_scale=1.0):
    """sum_k mean of the heads' losses of fakes; policy: hinge or non_saturating."""
    return torch.ops.addloss.generator(fake, policy, grad_scale)


def discriminator(real, fake, policy="hinge", grad_scale=1.0):
    """sum_k mean of the heads' losses of reals and fakes."""
    return torch.ops.addloss.discriminator(real, fake, policy, grad_scale)


def r1(logits, features, gamma=1e-5, grad_scale=1.0):
    """gamma sum_k mean_b |d sum(logits_k) / d features_k|^2; features must require gradients."""
    gradients = torch.autograd.grad([head.sum() for head in logits], features, create_graph=True)
    return torch.ops.addloss.r1(gradients, gamma, grad_scale)
