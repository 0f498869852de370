"""What the operations do on a GPU, under Triton's interpreter on a CPU, and on a GPU where there is one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch
from lowbit.affine_linear import pack
from lowbit.affine_linear.op import affine_linear, prepack

PROGRAM = """
import torch
from lowbit.affine_linear import dequantize, op, pack
from lowbit.affine_linear.op import _backward_cuda, _forward_cuda, _regrouped
from lowbit.codebook_linear import op as codebook
torch.manual_seed(0)
n, k, groups = 40, 256, 4
def close(found, expected):
    assert found.shape == expected.shape
    assert (found - expected).norm() < 1e-4 * expected.norm(), (found - expected).norm() / expected.norm()
for scattered in (False, True):
    codes = torch.randint(16, (n, k), dtype=torch.uint8)
    zero = torch.randint(16, (n, groups), dtype=torch.uint8)
    scale = torch.rand(n, groups).half()
    g_idx = torch.randperm(k).remainder(groups).to(torch.int16) if scattered else None
    dense = dequantize(codes, scale, zero, g_idx, 4)
    stored = (pack(codes, 4), scale, pack(zero.T, 4), g_idx, 4)
    for prepacked in ([], _regrouped(stored[0], scale, g_idx, 4) if scattered else []):
        x, dy = torch.randn(2, 3, k), torch.randn(2, 3, n)
        close(_forward_cuda(x, *stored, prepacked), x @ dense.T)
        close(_backward_cuda(dy, *stored, k, prepacked), dy @ dense)
table, absmax = torch.randn(16), torch.rand(n, groups)
stored = (pack(codes, 4), absmax, table)
dense = table[codes.int()] * absmax.repeat_interleave(k // groups, 1)
close(codebook._forward_cuda(x, *stored, []), x @ dense.T)
close(codebook._backward_cuda(dy, *stored, k, []), dy @ dense)
"""


def test_interpreted() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("scattered", [True, False])
def test_on_a_gpu_as_on_a_cpu(bits: int, scattered: bool) -> None:
    n, k, groups = 192, 512, 4
    g_idx = torch.randperm(k).remainder(groups).to(torch.int16) if scattered else None
    zero = pack(torch.randint(2**bits, (groups, n)), bits)
    stored = (pack(torch.randint(2**bits, (n, k)), bits), torch.rand(n, groups).half(), zero, g_idx)
    there = tuple(tensor.cuda() if tensor is not None else None for tensor in stored)
    prepacked = prepack(*there, bits, k)  # type: ignore[arg-type]
    for m in (1, 17, 300):
        x, dy = torch.randn(m, k, dtype=torch.bfloat16), torch.randn(m, n, dtype=torch.bfloat16)
        results = []
        for where, weights, extra in ((x, stored, ()), (x.cuda(), there, prepacked)):
            at = where.clone().requires_grad_()
            y = affine_linear(at, *weights, bits, extra)  # type: ignore[arg-type]
            y.backward(dy.to(y.device))
            assert at.grad is not None
            results.append((y.detach().float().cpu(), at.grad.float().cpu()))
        for cpu, gpu in zip(*results, strict=True):
            assert float((cpu - gpu).norm() / cpu.norm()) < 2**-7


@pytest.mark.gpu
def test_replay_of_a_graph_follows_its_input() -> None:
    stored = (pack(torch.randint(16, (128, 256)), 4).cuda(), torch.rand(128, 2).half().cuda(), None, None, 4)
    x = torch.randn(1, 256, device="cuda", dtype=torch.bfloat16)
    affine_linear(x, *stored)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        y = affine_linear(x, *stored)
    x.copy_(torch.randn_like(x))
    graph.replay()
    torch.testing.assert_close(y, affine_linear(x, *stored))
