"""Beam search against every sequence there is, and against greedy search."""

import itertools
import math

import pytest
import torch

from headway.config.contracts import DataSpec
from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.models import transformer
from headway.nn.beam_search import BEGIN, END, PADDING, beam_search, greedy_search, translate

pytestmark = pytest.mark.quick

V, LONGEST = 7, 5
DRAWN = [token for token in range(V) if token not in (PADDING, BEGIN)]


class Chaos:
    """A net whose distribution behind each beginning has nothing to do with that behind any other."""

    def __init__(self, seed):
        self.seed = seed

    def parameters(self):
        return iter([torch.zeros(1)])

    def encode(self, source_BS):
        # Padding adds nothing, so that a source is the same alone and among others.
        return (source_BS * torch.arange(1, source_BS.shape[1] + 1)).sum(1, keepdim=True)[..., None]

    def decode(self, target_BT, memory_BSD, source_BS, rng=None, state=None, *, carry=False):
        key_B = state["key"] if state else memory_BSD[:, 0, 0] * 7919 + self.seed
        logits = []
        for token_B in target_BT.unbind(1):
            key_B = (key_B * 48_271 + token_B * 1009 + 1) % 2_147_483_647
            logits.append(2.0 * torch.sin(key_B[:, None].double() * torch.arange(1, V + 1)))
        logits_BTV = torch.stack(logits, dim=1)
        logits_BTV[..., END] -= 1.0
        return (logits_BTV, {"key": key_B}) if carry else logits_BTV


def small_transformer(seed=3):
    spec = DataSpec(input_kind="pairs", input_shape=(5,), target_length=LONGEST, vocab_size=V)
    tree = {"kind": "transformer", "num_layers": 2, "num_heads": 2, "width": 6, "dropout": 0.0, "norm": "pre"}
    net = validate_section(transformer.Config, tree, path="model").build(spec).double().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim > 1:
                weight.normal_(0, 0.7, generator=generator)
    return net


NETS = {"chaos": Chaos(3), "more chaos": Chaos(5), "transformer": small_transformer()}


@pytest.fixture
def source_BS():  # noqa: N802 - names its axes
    return torch.tensor([[3, 5, 2, 0, 0], [6, 3, 4, 5, 2], [4, 2, 0, 0, 0]])


def every_ended_sequence(longest):
    inner = [token for token in DRAWN if token != END]
    for length in range(longest):
        yield from ([*start, END] for start in itertools.product(inner, repeat=length))


def log_probability(net, source, sequences):
    """Returns the log-probability of each sequence by the chain rule, without a state."""
    scores = torch.zeros(len(sequences), dtype=torch.float64)
    for length, group in itertools.groupby(range(len(sequences)), key=lambda place: len(sequences[place])):
        places = list(group)
        target = torch.tensor([sequences[place] for place in places])
        before = torch.cat([torch.full((len(places), 1), BEGIN), target[:, :-1]], dim=1)
        sources = source.expand(len(places), -1)
        with torch.no_grad():
            logits = net.decode(before, net.encode(sources), sources)
        assert logits.shape == (len(places), length, V)
        picked = torch.log_softmax(logits, 2).gather(2, target[:, :, None])[:, :, 0]
        scores[places] = picked.sum(1)
    return scores


@pytest.mark.parametrize("length_penalty", [0.0, 0.6, 2.0])
@pytest.mark.parametrize("name", NETS)
def test_a_beam_that_holds_everything_finds_the_best_of_all_sequences(source_BS, name, length_penalty):
    net = NETS[name]
    sequences = list(every_ended_sequence(LONGEST))
    length = torch.tensor([len(sequence) for sequence in sequences], dtype=torch.float64)
    penalty = ((5 + length) / 6) ** length_penalty
    found = beam_search(net, source_BS, beam=4**LONGEST, length_penalty=length_penalty, max_length=LONGEST)
    for source, best in zip(source_BS, found, strict=True):
        scores = log_probability(net, source[None], sequences) / penalty
        assert best.tokens == sequences[int(scores.argmax())]
        assert best.score == pytest.approx(scores.max().item(), abs=1e-9)


@pytest.mark.parametrize("seed", range(7))
def test_a_beam_of_one_is_greedy(source_BS, seed):
    net = Chaos(seed)
    found = beam_search(net, source_BS, beam=1, max_length=11)
    assert [best.tokens for best in found] == greedy_search(net, source_BS, max_length=11)


@pytest.mark.parametrize("name", NETS)
def test_greedy_search_takes_the_likeliest_token_each_time(source_BS, name):
    net = NETS[name]
    for source, tokens in zip(source_BS, greedy_search(net, source_BS, max_length=11), strict=True):
        for place, token in enumerate(tokens):
            before = torch.tensor([[BEGIN, *tokens[:place]]])
            logits = net.decode(before, net.encode(source[None]), source[None])[0, -1]
            assert token == max(DRAWN, key=lambda candidate: logits[candidate].item())
        assert tokens[-1] == END or len(tokens) == 11
        assert END not in tokens[:-1]


def test_a_wider_beam_finds_what_greedy_search_misses(source_BS):
    better = 0
    for seed in range(13):
        net = Chaos(seed)
        one, five = (beam_search(net, source_BS, beam=beam, length_penalty=0.0, max_length=7) for beam in (1, 5))
        better += sum(b.score > a.score + 1e-9 for a, b in zip(one, five, strict=True) if a.tokens[-1] == END)
    assert better > 3


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("name", NETS)
def test_a_source_is_translated_alike_alone_and_among_others(source_BS, name, beam):
    net = NETS[name]
    together = beam_search(net, source_BS, beam=beam)
    for source, best in zip(source_BS, together, strict=True):
        (alone,) = beam_search(net, source[source != PADDING][None], beam=beam)
        assert alone.tokens == best.tokens
        assert alone.score == pytest.approx(best.score, abs=1e-9)


def test_a_longer_translation_is_preferred_where_the_penalty_says_so(source_BS):
    lengths = [
        sum(len(best.tokens) for best in beam_search(Chaos(3), source_BS, beam=64, length_penalty=a, max_length=9))
        for a in (0.0, 3.0)
    ]
    assert lengths[0] < lengths[1]


class NeverEnds:
    """A net that thinks <eos> impossible; each next token is the likeliest after its predecessor."""

    def encode(self, source_BS):
        return source_BS[:, :, None].double()

    def decode(self, target_BT, memory_BSD, source_BS, rng, state, *, carry):
        logits = torch.zeros(*target_BT.shape, V, dtype=torch.float64)
        logits.scatter_(2, (target_BT[..., None] + 1).clamp(3, V - 1), 3.0)
        logits[..., END] = -math.inf
        return logits, {"read": target_BT}


def test_what_does_not_end_is_cut_off_fifty_tokens_past_its_source(source_BS):
    for found in (beam_search(NeverEnds(), source_BS, beam=2), greedy_search(NeverEnds(), source_BS)):
        tokens = [getattr(best, "tokens", best) for best in found]
        assert [len(sequence) for sequence in tokens] == [53, 55, 52]
        assert tokens[0][:5] == [3, 4, 5, 6, 6]


def test_outputs_that_are_no_numbers_are_refused(source_BS):
    net = small_transformer()
    with torch.no_grad():
        net.embedding.weight.fill_(math.nan)
    with pytest.raises(UserError, match="outputs are no numbers"):
        beam_search(net, source_BS)


class Letters:
    """A vocabulary of four letters."""

    def encode(self, text):
        return [3 + "abcd".index(letter) for letter in text] + [END]

    def decode(self, tokens):
        return "".join("abcd"[token - 3] for token in tokens if token >= 3)


def test_sentences_come_back_in_their_order_whatever_the_batches():
    net = Chaos(5)
    sentences = ["abc", "d", "", "cabbad", "abc", "bd", "dca"]
    whole = translate(net, Letters(), sentences, beam=3)
    assert len(set(whole)) > 2
    assert translate(net, Letters(), sentences, beam=3, batch_size=2) == whole
    assert whole == [translate(net, Letters(), [sentence], beam=3)[0] for sentence in sentences]
    assert translate(net, Letters(), []) == []
