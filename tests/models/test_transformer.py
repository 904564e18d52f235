"""The Transformer against torch.nn.Transformer with the weights carried over, its size, its masks and its memory."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from headway.config.contracts import DataSpec
from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.init import normal, xavier
from headway.init.base import initialize
from headway.models import transformer
from headway.nn.draws import Draws, name_streams

pytestmark = pytest.mark.quick

B, S, T, V, D = 3, 7, 5, 31, 22
SIZES = {"num_layers": 3, "num_heads": 2, "width": D, "hidden": 37, "dropout": 0.0}
SPEC = DataSpec(input_kind="pairs", input_shape=(S,), target_length=T, vocab_size=V)
NUM_TOKENS = torch.tensor([7, 2, 5])


def build(spec=SPEC, **settings):
    return validate_section(transformer.Config, {"kind": "transformer", **SIZES, **settings}, path="model").build(spec)


def stirred(**settings):
    """Returns a net whose every weight is drawn, norms and biases included: none is at a value that hides a mistake."""
    net = build(**settings).double()
    with torch.no_grad():
        for index, weight in enumerate(net.parameters()):
            weight.normal_(0, 0.2, generator=torch.Generator().manual_seed(index))
    return net


def pairs():
    """Returns sources (B, S), the second and third padded, and targets (B, T)."""
    generator = torch.Generator().manual_seed(5)
    source_BS = torch.randint(3, V, (B, S), generator=generator)
    source_BS = source_BS.masked_fill(torch.arange(S) >= NUM_TOKENS[:, None], 0)
    return source_BS, torch.randint(1, V, (B, T), generator=generator)


class Twin(nn.Module):
    """torch's Transformer behind the embedding, the positions and the output of the paper, with our weights."""

    def __init__(self, ours):
        super().__init__()
        pre = ours.config.norm == "pre"
        shape = {"d_model": D, "nhead": 2, "dim_feedforward": 37, "dropout": 0.0, "batch_first": True}

        def stack(layer, of):
            layer = layer(**shape, norm_first=pre)
            nested = {"enable_nested_tensor": False} if of is nn.TransformerEncoder else {}
            return of(layer, 3, norm=nn.LayerNorm(D) if pre else None, **nested)

        self.embedding = nn.Embedding(V, D)
        self.net = nn.Transformer(
            D, 2, batch_first=True,
            custom_encoder=stack(nn.TransformerEncoderLayer, nn.TransformerEncoder),
            custom_decoder=stack(nn.TransformerDecoderLayer, nn.TransformerDecoder),
        )  # fmt: skip
        self.double()
        self.pairs = [(ours.embedding, self.embedding)]
        if pre:
            self.pairs += [(ours.encoder_norm, self.net.encoder.norm), (ours.decoder_norm, self.net.decoder.norm)]
        for own, other in zip([*ours.encoder, *ours.decoder], self._layers(), strict=True):
            self.pairs += [(own.attention, other.self_attn), (own.attention_sum.norm, other.norm1)]
            self.pairs += [(own.perceptron.expand, other.linear1), (own.perceptron.contract, other.linear2)]
            if hasattr(own, "memory_attention"):
                self.pairs += [(own.memory_attention, other.multihead_attn), (own.memory_sum.norm, other.norm2)]
            self.pairs.append((own.perceptron_sum.norm, other.norm3 if hasattr(other, "norm3") else other.norm2))
        with torch.no_grad():
            for own, other in self.weights():
                other.copy_(own)

    def _layers(self):
        return [*self.net.encoder.layers, *self.net.decoder.layers]

    def weights(self, take=lambda weight: weight):
        """Yields our weights, or what is taken of them, and theirs."""
        for own, other in self.pairs:
            if not isinstance(other, nn.MultiheadAttention):
                for name, weight in other.named_parameters():
                    yield take(getattr(own, name)), take(weight)
                continue
            for name in ("weight", "bias"):
                parts = [take(getattr(part, name)) for part in (own.query, own.key, own.value)]
                yield torch.cat(parts), take(getattr(other, f"in_proj_{name}"))
                yield take(getattr(own.output, name)), take(getattr(other.out_proj, name))

    def forward(self, source_BS, target_BT):
        hidden = source_BS == 0
        out = self.net(
            self._embed(source_BS), self._embed(target_BT), tgt_mask=nn.Transformer.generate_square_subsequent_mask(T),
            tgt_is_causal=True, src_key_padding_mask=hidden, memory_key_padding_mask=hidden,
        )  # fmt: skip
        return out @ self.embedding.weight.T

    def _embed(self, token):
        wave = np.arange(token.shape[1])[:, None] / 10_000 ** (np.arange(0, D, 2) / D)
        position = np.empty((token.shape[1], D))
        position[:, 0::2], position[:, 1::2] = np.sin(wave), np.cos(wave)
        return self.embedding(token) * math.sqrt(D) + torch.from_numpy(position)


@pytest.mark.filterwarnings("ignore:Support for mismatched src_key_padding_mask")
@pytest.mark.parametrize("norm", ["post", "pre"])
def test_logits_and_gradients_are_those_of_torch(norm):
    ours = stirred(norm=norm)
    theirs = Twin(ours)
    source_BS, target_BT = pairs()
    out, expected = ours(source_BS, target_BT), theirs(source_BS, target_BT)
    assert out.std() > 0.2
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-12)
    for logits in (out, expected):
        F.cross_entropy(logits.flatten(0, 1), target_BT.roll(-1, 1).flatten()).backward()
    compared = 0
    for own, other in theirs.weights(lambda weight: weight.grad):
        assert own.abs().sum() > 0
        torch.testing.assert_close(own, other, rtol=0, atol=1e-12)
        compared += own.numel()
    assert compared == sum(weight.numel() for weight in ours.parameters())


def test_the_base_size_has_as_many_weights_as_the_paper_implies():
    spec = DataSpec(input_kind="pairs", input_shape=(100,), target_length=100, vocab_size=37_000)
    with torch.device("meta"):
        net = build(spec, num_layers=6, num_heads=8, width=512, hidden=2048)
    assert sum(weight.numel() for weight in net.parameters()) == 63_082_496


def test_the_perceptron_is_four_times_as_wide_where_nothing_else_is_said():
    assert build(hidden=None).encoder[0].perceptron.expand.out_features == 4 * D


def test_source_target_and_output_share_one_embedding():
    net = initialize(build(), xavier.Config(kind="xavier", seed=3))
    assert net.output.weight is net.embedding.weight
    assert sum(name.count("embedding") for name, _ in net.named_parameters()) == 1
    assert net.embedding.weight.std() > 0


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_loss_at_initialization_is_near_that_of_guessing(norm):
    net = initialize(build(norm=norm), normal.Config(kind="normal", seed=3, std=0.02))
    source_BS, target_BT = pairs()
    loss = F.cross_entropy(net(source_BS, target_BT).flatten(0, 1), target_BT.roll(-1, 1).flatten())
    assert abs(loss.item() - math.log(V)) < 0.15


def test_the_decoder_is_causal_and_the_encoder_is_not():
    net = stirred()
    source_BS, target_BT = pairs()
    out = net(source_BS, target_BT)
    for now in range(T - 1):
        changed = target_BT.clone()
        changed[:, now + 1 :] = changed[:, now + 1 :] % (V - 1) + 1
        later = net(source_BS, changed)
        torch.testing.assert_close(later[:, : now + 1], out[:, : now + 1], rtol=0, atol=1e-13)
        assert not torch.allclose(later[:, now + 1], out[:, now + 1])
    changed = source_BS.clone()
    changed[:, 1] = changed[:, 1] % (V - 1) + 1
    assert not torch.isclose(net(changed, target_BT), out).all(2).any()


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_padding_changes_nothing(norm):
    net = stirred(norm=norm)
    source_BS, target_BT = pairs()
    out = net(source_BS, target_BT)
    longer = net(F.pad(source_BS, (0, 4)), F.pad(target_BT, (0, 2)))
    torch.testing.assert_close(longer[:, :T], out, rtol=0, atol=1e-12)
    for row, num_tokens in enumerate(NUM_TOKENS.tolist()):
        alone = net(source_BS[row : row + 1, :num_tokens], target_BT[row : row + 1])
        torch.testing.assert_close(alone, out[row : row + 1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("cuts", [[1] * T, [3, 2], [2, 1, 2]])
def test_a_target_in_pieces_gives_the_logits_of_the_whole(norm, cuts):
    net = stirred(norm=norm)
    source_BS, target_BT = pairs()
    memory_BSD, state, pieces = net.encode(source_BS), None, []
    for piece in target_BT.split(cuts, dim=1):
        logits, state = net.decode(piece, memory_BSD, source_BS, None, state, carry=True)
        pieces.append(logits)
    torch.testing.assert_close(torch.cat(pieces, dim=1), net(source_BS, target_BT), rtol=0, atol=1e-12)
    assert len(state) == 4 * 3
    assert {value.shape for value in state.values()} == {(B, 2, T, D // 2), (B, 2, S, D // 2)}


def test_dropout_is_the_same_however_a_batch_is_cut():
    net = name_streams(stirred(dropout=0.3))
    source_BS, target_BT = pairs()
    whole = net(source_BS, target_BT, Draws(3, 5, 0, B))
    for row, num_tokens in enumerate(NUM_TOKENS.tolist()):
        one = net(source_BS[row : row + 1, :num_tokens], target_BT[row : row + 1], Draws(3, 5, row, 1))
        torch.testing.assert_close(one, whole[row : row + 1], rtol=0, atol=1e-12)
    assert not torch.allclose(net(source_BS, target_BT, Draws(3, 6, 0, B)), whole)
    assert torch.equal(net.eval()(source_BS, target_BT, Draws(3, 5, 0, B)), net(source_BS, target_BT))


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"num_heads": 3}, "model: num_heads is 3 and does not divide width 22"),
        ({"norm": "middle"}, "model.norm: input should be 'post' or 'pre' (got 'middle')"),
        ({"dropout": 1.0}, "model.dropout: input should be less than 1 (got 1.0)"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(settings, line):
    with pytest.raises(UserError) as caught:
        build(**settings)
    assert str(caught.value).startswith(line)


def test_data_that_is_no_pairs_is_refused():
    with pytest.raises(UserError, match=r"^model\.kind: transformer reads pairs of sentences; this data gives tokens"):
        build(DataSpec("tokens", (7,), vocab_size=V))
