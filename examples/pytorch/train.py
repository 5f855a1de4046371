# SPDX-License-Identifier: MIT
"""ADD steps in PyTorch with the operators of addloss. Networks and images are stand-ins: all images
are one pattern with a little noise, and the teacher knows it.

    python3 train.py build/torch/lib/libaddloss_operators.so [--device cuda] [--autocast]
"""
import argparse

import torch

import losses


def network(channels_in, channels_out):
    return torch.nn.Sequential(torch.nn.Conv2d(channels_in, 16, 3, padding=1), torch.nn.SiLU(),
                               torch.nn.Conv2d(16, channels_out, 3, padding=1))


def train(steps, device="cpu", autocast=False):
    """Returns the first and the last distillation loss. `autocast`: networks in bfloat16."""
    torch.manual_seed(0)
    levels = losses.cosine_levels(device=device)
    taus = torch.tensor([249, 499, 749, 999], device=device)
    student = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(256, 256),
                                  torch.nn.Unflatten(1, (1, 16, 16))).to(device)
    heads = torch.nn.ModuleList([network(1, 1), network(1, 1)]).to(device)
    student_optimiser = torch.optim.Adam(student.parameters(), 1e-2)
    heads_optimiser = torch.optim.Adam(heads.parameters(), 1e-3)
    pattern = torch.rand(1, 1, 16, 16, device=device) * 2 - 1
    real = pattern + 0.1 * torch.randn(8, 1, 16, 16, device=device)
    history = []

    def level(t):
        return levels[t].float().view(-1, 2, 1, 1, 1).unbind(1)

    def noised(x_0, t, noise):
        alpha, sigma = level(t)
        return alpha * x_0 + sigma * noise

    def teacher(x_t, t):
        """v, which makes the pattern of x_t: pattern = alpha x_t - sigma v."""
        alpha, sigma = level(t)
        return (alpha * x_t - pattern) / sigma

    def discriminator_loss(fake):
        features = [real.clone().requires_grad_() for _ in heads]
        real_logits = [head(x).flatten(1) for head, x in zip(heads, features)]
        fake_logits = [head(fake.detach()).flatten(1) for head in heads]
        return losses.discriminator(real_logits, fake_logits) + losses.r1(real_logits, features, 1e-3)

    def distillation_loss(fake):
        t = torch.randint(900, (8,), device=device)
        noise = torch.randn_like(fake)
        with torch.no_grad():
            v = teacher(noised(fake, t, noise), t)
        return losses.distillation_from_teacher(fake, v, t, levels, "v", noise)

    for _ in range(steps):
        with torch.autocast(torch.device(device).type, torch.bfloat16, autocast):
            t = taus[torch.randint(4, (8,), device=device)]
            fake = student(noised(real, t, torch.randn_like(real)))
            loss = discriminator_loss(fake)
        heads_optimiser.zero_grad()
        loss.backward()
        heads_optimiser.step()

        with torch.autocast(torch.device(device).type, torch.bfloat16, autocast):
            distilled = distillation_loss(fake)
            loss = losses.generator([head(fake).flatten(1) for head in heads]) + 2.5 * distilled
        student_optimiser.zero_grad()
        loss.backward()
        student_optimiser.step()
        history.append(distilled.detach())
    return history[0].item(), history[-1].item()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("operators", help="path of libaddloss_operators.so")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--autocast", action="store_true")
    arguments = parser.parse_args()
    losses.load(arguments.operators)
    print("distillation: first %.4f, last %.4f" % train(100, arguments.device, arguments.autocast))
