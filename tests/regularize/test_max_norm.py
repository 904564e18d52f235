"""Max-norm against torch.renorm."""

import pytest
import torch
from torch import nn

from headway.config.contracts import DataSpec
from headway.regularize.max_norm import Config

pytestmark = pytest.mark.quick

SPEC = DataSpec("features", (7,), num_classes=3)
LIMIT = 0.5


class Net(nn.Module):
    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.embedding = nn.Embedding(13, 11)
        self.convolution = nn.Conv2d(2, 5, 3)
        self.linear = nn.Linear(7, 11)
        self.output = nn.Linear(11, 13, bias=False)
        if tied:
            self.output.weight = self.embedding.weight


def project(engine_of, net: Net) -> dict[str, torch.Tensor]:
    before = {name: weight.detach().clone() for name, weight in net.named_parameters()}
    technique = Config(limit=LIMIT).build(SPEC, seed=1)
    technique.attach(net)
    technique.after_update(engine_of(net), 0)
    return before


@pytest.mark.parametrize("name", ["linear.weight", "convolution.weight", "output.weight"])
def test_incoming_weights_are_torchs_renorm(engine_of, name: str) -> None:
    net = Net()
    with torch.no_grad():
        net.linear.weight[2] *= 0.01
        net.linear.weight[3] = 0.0
    before = project(engine_of, net)[name]
    expected = torch.renorm(before, 2, 0, LIMIT)
    assert not expected.equal(before)
    torch.testing.assert_close(net.get_parameter(name).detach(), expected)


def test_short_rows_and_vectors_and_embeddings_stay_as_they_are(engine_of) -> None:
    net = Net()
    with torch.no_grad():
        net.linear.weight[2] *= 0.01
        net.linear.bias += 100.0
    before = project(engine_of, net)
    assert net.linear.weight[2].equal(before["linear.weight"][2])
    assert not net.linear.weight[1].equal(before["linear.weight"][1])
    assert net.linear.bias.equal(before["linear.bias"])
    assert net.embedding.weight.equal(before["embedding.weight"])


def test_an_output_that_is_tied_to_an_embedding_stays(engine_of) -> None:
    net = Net(tied=True)
    before = project(engine_of, net)
    assert net.output.weight.equal(before["embedding.weight"])
