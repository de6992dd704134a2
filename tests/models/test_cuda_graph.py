import re
import subprocess
import sys

import pytest
import torch
from torch import nn

from earn_plugin.models.cuda_graph import WARM_UP, CudaGraph
from tests.helpers.runs import batch, build, step

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
GAN = {
    'gan_opt': {'type': 'GANLoss', 'gan_type': 'vanilla', 'loss_weight': 0.1},
    'optim_d': {'type': 'Adam', 'lr': 1e-6},
}


def test_on_a_cpu_the_option_has_no_effect(opt):
    models = build(opt), build(opt, cuda_graph=True)
    for model in models:
        step(model)
    for a, b in zip(*(model.net_g.parameters() for model in models), strict=True):
        assert torch.equal(a, b)


def test_several_processes_are_refused(opt):
    with pytest.raises(ValueError, match=r'train\.cuda_graph is for one process'):
        build({**opt, 'dist': True}, cuda_graph=True)


@needs_cuda
@pytest.mark.parametrize('precision', ['fp32', 'bf16'])
@pytest.mark.parametrize('train', [{}, {'accum_iter': 2}, {'memory_format': 'channels_last'}, GAN], ids=str)
def test_gradients_and_logs_are_those_without_a_graph(opt, train, precision):
    opt['num_gpu'] = 1
    if train is GAN:
        opt |= {
            'model_type': 'EARNGANModel',
            'network_d': {'type': 'UNetDiscriminatorSN', 'num_in_ch': 3, 'num_feat': 8},
        }
    train = {**train, 'precision': precision, 'optim_g': {'type': 'Adam', 'lr': 1e-6}}
    plain, graph = build(opt, **train), build(opt, **train, cuda_graph=True)
    for iteration in range(1, WARM_UP + 4):
        for model in (plain, graph):
            step(model, iteration, batch(iteration, (4, 3, 16, 16)))
    tolerance = 1e-3 if precision == 'fp32' else 5e-2
    assert graph.add_gradients.graph is not None
    assert graph.get_current_log() == pytest.approx(plain.get_current_log(), rel=tolerance)
    assert torch.allclose(graph.output, plain.output, atol=tolerance)
    for net in ('net_g', *(['net_d'] if 'network_d' in opt else [])):
        for a, b in zip(getattr(graph, net).parameters(), getattr(plain, net).parameters(), strict=True):
            assert (a.grad - b.grad).norm() <= tolerance * b.grad.norm() + 1e-6


@needs_cuda
def test_gradients_are_added_to_earlier_ones():
    layer = nn.Linear(3, 2).cuda()

    def function(x):
        loss = layer(x).square().sum()
        loss.backward()
        return loss.detach()

    graph = CudaGraph(function, layer.parameters())
    for seed in range(WARM_UP + 3):
        inputs = [torch.rand(5 if seed < WARM_UP + 2 else 4, 3, device='cuda') for _ in range(2)]
        layer.zero_grad()
        losses = [graph(x) for x in inputs]
        found = [p.grad.clone() for p in layer.parameters()]
        layer.zero_grad()
        assert [function(x).item() for x in inputs] == pytest.approx([loss.item() for loss in losses])
        assert all(torch.allclose(a, p.grad) for a, p in zip(found, layer.parameters(), strict=True))


WAITS = """
import torch
from earn_plugin.models.cuda_graph import WARM_UP, CudaGraph
weight = torch.nn.Parameter(torch.ones(1, device='cuda'))
graph = CudaGraph(lambda x: x * (x * weight).sum().item(), [weight])
for _ in range(WARM_UP + 1):
    graph(torch.ones(2, device='cuda'))
"""


@needs_cuda
def test_a_function_that_waits_for_the_gpu_cannot_be_recorded():
    """In a process of its own: after such a failure, torch cannot use the GPU's generator of random numbers."""
    process = subprocess.run([sys.executable, '-c', WAITS], capture_output=True, text=True)
    assert re.search(r'UserError: train\.cuda_graph: CUDA cannot record it \(.+\); train without', process.stderr)
