"""Batch normalization against torch's own, on one process and over ranks that share a batch unequally."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from headway.nn.batch_norm import BatchNorm


@pytest.mark.quick
@pytest.mark.parametrize("shape", [(7, 3), (5, 3, 2), (5, 3, 2, 4)])
@pytest.mark.parametrize("training", [True, False])
def test_one_process_normalizes_as_torch_does(shape, training):
    torch.manual_seed(3)
    theirs = {2: nn.BatchNorm1d, 3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)](3).double().train(training)
    with torch.no_grad():
        for value in (*theirs.parameters(), theirs.running_mean, theirs.running_var):
            value.uniform_(0.5, 1.5)
    ours = BatchNorm(3).double().train(training)
    ours.load_state_dict(theirs.state_dict(), strict=False)
    x = torch.randn(shape, dtype=torch.float64)
    results = []
    for norm in (ours, theirs):
        mine = x.clone().requires_grad_()
        out = norm(mine)
        out.pow(3).sum().backward()
        results.append((out, mine.grad, norm.weight.grad, norm.bias.grad, norm.running_mean, norm.running_var))
    torch.testing.assert_close(results[0], results[1])


def test_unequal_ranks_and_one_without_rows_normalize_as_one_process(tmp_path: Path):
    torch.manual_seed(5)
    single = nn.BatchNorm2d(3).double()
    with torch.no_grad():
        for weight in single.parameters():
            weight.uniform_(0.5, 1.5)
    # Far from zero, where a mean of squares less a squared mean would lose its digits.
    x = torch.randn(7, 3, 2, 4, dtype=torch.float64) + 1e4
    slope = torch.randn_like(x)
    file = tmp_path / "given"
    state = {name: value for name, value in single.state_dict().items() if "num_batches" not in name}
    torch.save({"x": x, "slope": slope, "state": state}, file)
    worker = Path(__file__).parent / "batch_norm_worker.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "3", worker, file]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]

    mine = x.clone().requires_grad_()
    for _ in range(2):
        out = single(mine)
    (out * slope).sum().backward()
    ranks = [torch.load(f"{file}.{rank}") for rank in range(3)]
    close = {"rtol": 1e-9, "atol": 1e-9}
    torch.testing.assert_close(torch.cat([rank["out"] for rank in ranks[:2]]), out.detach(), **close)
    torch.testing.assert_close(torch.cat([rank["gradient"] for rank in ranks[:2]]), mine.grad, **close)
    assert ranks[2]["gradient"].abs().max() < 1e-12
    for rank in ranks:
        torch.testing.assert_close(rank["weights"], [weight.grad for weight in single.parameters()], **close)
        for name, value in rank["state"].items():
            torch.testing.assert_close(value, single.state_dict()[name], **close)
