# SPDX-License-Identifier: MIT
"""The losses of addloss as functions of PyTorch's tensors.

Autograd differentiates them, twice if need be, and torch.compile follows them (once). Half types keep
their gradients times `grad_scale`: give the loss scale of a GradScaler.

Images are [B, ...], logits one tensor [B, L] a head. `timesteps` [B] are int64; `levels` [T, 2],
float64, are alpha and sigma of each of them: x_t = alpha x_0 + sigma noise. Every loss is a mean over
the batch.

All tensors of a call are on one device, timesteps and levels too, and those of images and logits of
one type; under autocast float ones and half ones may meet, and count as float. On a GPU nothing waits,
so a timestep outside the levels is no error there, but makes the loss NaN.
"""
import math

import torch


def load(path):
    """Loads the operators: the library that the build makes of operators.cpp."""
    torch.ops.load_library(path)


def cosine_levels(timesteps=1000, offset=0.008, device="cpu"):
    """alpha and sigma of each timestep of a cosine schedule, [T, 2]: any schedule will do."""
    t = torch.arange(1, timesteps + 1, dtype=torch.float64) / timesteps
    angle = (t + offset) / (1 + offset) * math.pi / 2
    alpha = (torch.cos(angle) / math.cos(offset / (1 + offset) * math.pi / 2)).clamp_min(1e-3)
    return torch.stack([alpha, (1 - alpha**2).clamp_min(0).sqrt()], 1).contiguous().to(device)


def distillation(student, target, timesteps, levels, weighting="exponential", grad_scale=1.0):
    """mean_b c(t_b) mean (student - target)^2; the target is a constant.

    weighting, c(t): uniform, 1; exponential, alpha; sds and nfsd, alpha sigma / 2;
    snr, alpha^2 / sigma^2; min_snr, that but at most 5.
    """
    return torch.ops.addloss.distillation(student, target, timesteps, levels, weighting, grad_scale)


def distillation_from_teacher(student, conditional, timesteps, levels, prediction, noise=None,
                              unconditional=None, negative=None, guidance_scale=1.0,
                              weighting="exponential", grad_scale=1.0):
    """The same, the target being what the teacher's predictions for x_t = alpha student + sigma noise
    say of x_0; they are constants, and the target is not stored.

    prediction, p: epsilon; v, alpha epsilon - sigma x_0; x0 (no noise needed); flow, epsilon - x_0,
    for levels with alpha + sigma = 1. With `unconditional` u, p = u + guidance_scale (conditional - u).
    weighting nfsd, for epsilon alone: p - noise is replaced by d + guidance_scale (conditional - u)
    with d = u for t < 200, else u - `negative` (no noise needed).
    """
    return torch.ops.addloss.distillation_from_teacher(
        student, conditional, unconditional, negative, noise, timesteps, levels, prediction, weighting,
        guidance_scale, grad_scale)


def generator(fake, policy="hinge", grad_scale=1.0):
    """sum_k mean of the heads' losses of fakes z.

    policy: hinge and wasserstein, -z; non_saturating, softplus(-z); least_squares, (z - 1)^2.
    """
    return torch.ops.addloss.generator(fake, policy, grad_scale)


def discriminator(real, fake, policy="hinge", grad_scale=1.0):
    """sum_k mean of the heads' losses of reals r, and of fakes f.

    policy: hinge, max(0, 1 - r) and max(0, 1 + f); non_saturating, softplus(-r) and softplus(f);
    least_squares, (r - 1)^2 and f^2; wasserstein, -r and f.
    """
    return torch.ops.addloss.discriminator(real, fake, policy, grad_scale)


def relativistic_generator(real, fake, grad_scale=1.0):
    """sum_k mean softplus(real - fake), differentiated with respect to both."""
    return torch.ops.addloss.relativistic_generator(real, fake, grad_scale)


def relativistic_discriminator(real, fake, grad_scale=1.0):
    """sum_k mean softplus(fake - real), differentiated with respect to both."""
    return torch.ops.addloss.relativistic_discriminator(real, fake, grad_scale)


def r1(logits, features, gamma=1e-5, grad_scale=1.0):
    """gamma sum_k mean_b |d sum(logits_k) / d features_k|^2; features must require gradients."""
    gradients = torch.autograd.grad([head.sum() for head in logits], features, create_graph=True)
    return torch.ops.addloss.r1(gradients, gamma, grad_scale)


def approximate_r1(logits, perturbed, weight=100.0, grad_scale=1.0):
    """weight sum_k mean_b |logits - perturbed|^2: of an input, and of the same with a little noise."""
    return torch.ops.addloss.approximate_r1(logits, perturbed, weight, grad_scale)
