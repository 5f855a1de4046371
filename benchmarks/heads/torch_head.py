# SPDX-License-Identifier: MIT
"""The discriminator head in PyTorch, which the comparisons on the CPU and on a GPU share."""

import functools
import math

CHANNELS, CONDITION, WIDTH, KERNEL = 384, 768, 64, 9
GROUP = 8  # samples that are normalised together
SLOPE, EPSILON = 0.2, 1e-5


@functools.cache
def define():
    """The class Head(norm, spectral); norm: "composed" of single operations, or F.batch_norm. Here,
    since the program that starts the others has no use for torch."""
    import torch
    import torch.nn.functional as F
    from torch import nn

    class Convolution(nn.Module):
        """y = conv1d(x) with circular padding; W / sigma in place of W with spectral norm."""

        def __init__(self, outputs, kernel, spectral):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(outputs, CHANNELS, kernel))
            self.weight.data /= math.sqrt(CHANNELS * kernel)
            self.bias = nn.Parameter(0.1 * torch.randn(outputs))
            self.spectral = spectral
            self.register_buffer("u", F.normalize(torch.randn(outputs), dim=0))
            self.register_buffer("v", F.normalize(torch.randn(CHANNELS * kernel), dim=0))

        @torch.no_grad()
        def update(self):
            w = self.weight.flatten(1)
            self.v.copy_(F.normalize(w.T @ self.u, dim=0, eps=1e-12))
            self.u.copy_(F.normalize(w @ self.v, dim=0, eps=1e-12))

        def forward(self, x):
            w = self.weight
            if self.spectral:
                w = w / (self.u @ (w.flatten(1) @ self.v))
            half = w.shape[2] // 2
            if half:
                x = F.pad(x, (half, half), mode="circular")
            return F.conv1d(x, w, self.bias)

    class LocalNorm(nn.Module):
        """Mean and biased variance of each channel over the samples of a group and their tokens."""

        def __init__(self, way):
            super().__init__()
            self.weight = nn.Parameter(1 + 0.2 * torch.randn(CHANNELS))
            self.bias = nn.Parameter(0.2 * torch.randn(CHANNELS))
            self.way = way

        def forward(self, x):
            batch, channels, length = x.shape
            groups = batch // GROUP
            if self.way == "batch_norm":
                # The channels of each group as channels of their own.
                y = x.view(groups, GROUP, channels, length).transpose(0, 1)
                y = y.reshape(GROUP, groups * channels, length)
                y = F.batch_norm(y, None, None, self.weight.repeat(groups),
                                 self.bias.repeat(groups), True, 0.0, EPSILON)
                y = y.view(GROUP, groups, channels, length).transpose(0, 1)
                return y.reshape(batch, channels, length)
            y = x.view(groups, GROUP, channels, length)
            mean = y.mean((1, 3), keepdim=True)
            centred = y - mean
            variance = centred.square().mean((1, 3), keepdim=True)
            normal = (centred * (variance + EPSILON).rsqrt()).view_as(x)
            return torch.addcmul(self.bias[:, None], normal, self.weight[:, None])

    class Block(nn.Module):
        def __init__(self, kernel, norm, spectral):
            super().__init__()
            self.conv = Convolution(CHANNELS, kernel, spectral)
            self.norm = LocalNorm(norm)

        def forward(self, x):
            return F.leaky_relu(self.norm(self.conv(x)), SLOPE, inplace=True)

    class Classifier(Convolution):
        """The sum over p of out_p m_p / sqrt(P), m a linear map of the condition."""

        def __init__(self, spectral):
            super().__init__(WIDTH, 1, spectral)
            self.condition0 = nn.Linear(CONDITION, WIDTH)
            nn.init.normal_(self.condition0.weight)
            nn.init.normal_(self.condition0.bias, std=0.1)

        def forward(self, h, condition):
            m = F.linear(condition, self.condition0.weight / math.sqrt(CONDITION),
                         self.condition0.bias)
            return (super().forward(h) * (m / math.sqrt(WIDTH))[:, :, None]).sum(1)

    class Head(nn.Module):
        def __init__(self, norm, spectral):
            super().__init__()
            self.first = Block(1, norm, spectral)
            self.residual = Block(KERNEL, norm, spectral)
            self.classifier = Classifier(spectral)

        def normalised(self):
            return self.first.conv, self.residual.conv, self.classifier

        def forward(self, x, condition):
            h = self.first(x)
            h = (self.residual(h) + h) * math.sqrt(0.5)
            return self.classifier(h, condition)

    return Head
