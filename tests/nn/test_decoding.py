"""Generation: which tokens are drawn from, against transformers; and that a state changes nothing but the time."""

import importlib.util
from collections import Counter
from itertools import islice

import pytest
import torch
from torch import nn

from headway.config.contracts import DataSpec
from headway.config.errors import UserError
from headway.models import gpt
from headway.nn.decoding import keep_likeliest, pick, sample_tokens

pytestmark = pytest.mark.quick

T, V = 7, 31


def generator(seed=5):
    return torch.Generator().manual_seed(seed)


def build(norm="pre"):
    spec = DataSpec(input_kind="tokens", input_shape=(T,), vocab_size=V)
    net = gpt.Config(kind="gpt", num_layers=2, num_heads=3, width=15, norm=norm).build(spec).double().eval()
    with torch.no_grad():
        for index, weight in enumerate(net.parameters()):
            weight.normal_(0, 0.4, generator=generator(index))
    return net


class Echo(nn.Module):
    """Says with certainty that the next token is the sum of the last two, which it carries."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(50.0))
        self.calls = []

    def forward(self, token_BT, rng=None, state=None, *, carry=False):
        self.calls.append(token_BT.tolist()[0])
        before = torch.zeros_like(token_BT[:, :1]) if state is None else state["last"]
        pair_BS = torch.cat([before, token_BT], dim=1)
        logits = self.scale * nn.functional.one_hot((pair_BS[:, 1:] + pair_BS[:, :-1]) % V, V)
        return (logits, {"last": token_BT[:, -1:]}) if carry else logits


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed here")
@pytest.mark.parametrize("top_k", [None, 1, 2, 13, V, V + 6])
@pytest.mark.parametrize("top_p", [None, 1e-9, 0.3, 0.8, 0.999, 1.0])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_the_tokens_to_draw_from_are_those_of_transformers(top_k, top_p, temperature):
    from transformers.generation.logits_process import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

    for seed in range(7):
        logits_V = torch.randn(V, dtype=torch.float64, generator=generator(seed)) * 3
        expected_1V = TemperatureLogitsWarper(temperature)(None, logits_V[None])
        if top_k is not None:
            expected_1V = TopKLogitsWarper(min(top_k, V))(None, expected_1V)
        if top_p is not None and top_p < 1:
            expected_1V = TopPLogitsWarper(top_p)(None, expected_1V)
        torch.testing.assert_close(
            keep_likeliest(logits_V / temperature, top_k=top_k, top_p=top_p), expected_1V[0], rtol=0, atol=1e-12
        )


def test_tokens_are_drawn_as_often_as_they_are_likely():
    logits_V = torch.tensor([0.0, 1.0, 2.0, -1.0])
    draws, rng = 4001, generator()
    found = Counter(pick(logits_V, temperature=0.7, top_k=3, generator=rng) for _ in range(draws))
    kept = torch.tensor([0.0, 1.0, 2.0]) / 0.7
    for token, probability in enumerate(torch.softmax(kept, 0).tolist()):
        assert abs(found[token] / draws - probability) < 4 * (probability * (1 - probability) / draws) ** 0.5
    assert set(found) == {0, 1, 2}


def test_a_temperature_of_zero_takes_the_likeliest_token():
    logits_V = torch.randn(V, generator=generator())
    assert pick(logits_V, temperature=0.0, top_p=0.1, generator=generator()) == int(logits_V.argmax())
    assert pick(logits_V, temperature=1e-4, generator=generator()) == int(logits_V.argmax())


@pytest.mark.parametrize("settings", [{"temperature": 0.0}, {"temperature": 1.3}, {"top_k": 5}, {"top_p": 0.7}])
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_generation_with_a_cache_is_generation_without(norm, settings):
    net, prompt, one, two = build(norm), [3, 11], generator(), generator()
    found = list(sample_tokens(net, prompt, 17, generator=one, **settings))
    tokens = list(prompt)
    for _ in range(17):
        # No cache; what is beyond the positions is forgotten.
        logits_V = net(torch.tensor([tokens[-T:]]))[0, -1].float()
        tokens.append(pick(logits_V.detach(), generator=two, **settings))
    assert found == tokens[len(prompt) :]
    assert len(set(found)) > 1


def test_a_net_with_a_state_reads_each_token_once():
    net = Echo()
    assert list(sample_tokens(net, [1, 2], 5)) == [3, 5, 8, 13, 21]
    assert net.calls == [[1, 2], [3], [5], [8], [13]]


def test_a_prompt_longer_than_the_positions_keeps_its_end():
    net, prompt = build(), [5, 3, 2, 7, 11, 13, 17, 19, 23]
    found = list(sample_tokens(net, prompt, 3, temperature=0))
    assert found == list(sample_tokens(net, prompt[-T:], 3, temperature=0))


def test_tokens_come_one_at_a_time():
    net = Echo()
    assert list(islice(sample_tokens(net, [1, 2], 1000), 2)) == [3, 5]
    assert len(net.calls) == 2


def test_generation_leaves_no_graph():
    net = build()
    for _ in sample_tokens(net, [3], 2):
        assert torch.is_grad_enabled()
    assert all(weight.grad is None for weight in net.parameters())


@pytest.mark.parametrize(
    ("prompt", "settings", "line"),
    [
        ([], {}, "prompt: is empty"),
        ([3], {"temperature": -1.0}, "temperature: is -1.0"),
        ([3], {"top_k": 0}, "top_k: is 0"),
        ([3], {"top_p": 0.0}, "top_p: is 0.0"),
        ([3], {"top_p": 1.5}, "top_p: is 1.5"),
    ],
)
def test_settings_out_of_range_are_refused(prompt, settings, line):
    with pytest.raises(UserError) as caught:
        next(sample_tokens(Echo(), prompt, 3, **settings))
    assert str(caught.value).startswith(line)
