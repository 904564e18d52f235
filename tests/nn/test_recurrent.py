"""Recurrent layers against torch's, kernels against the cells written out, and how they start."""

import itertools

import pytest
import torch
from torch import nn

from headway.nn.draws import Draws, name_streams
from headway.nn.recurrent import GRULayer, LSTMLayer, Recurrent, VanillaLayer, _in_one_piece
from headway.nn.variational_dropout import VariationalDropout

pytestmark = pytest.mark.quick

B, T, I, H, L = 3, 11, 5, 7, 2  # noqa: E741
KINDS = {
    "tanh": (lambda *sizes, **settings: VanillaLayer(*sizes, **settings), lambda: nn.RNN(I, H, L, batch_first=True)),
    "relu": (
        lambda *sizes, **settings: VanillaLayer(*sizes, activation="relu", **settings),
        lambda: nn.RNN(I, H, L, nonlinearity="relu", batch_first=True),
    ),
    "lstm": (lambda *sizes, **settings: LSTMLayer(*sizes, **settings), lambda: nn.LSTM(I, H, L, batch_first=True)),
    "gru": (lambda *sizes, **settings: GRULayer(*sizes, **settings), lambda: nn.GRU(I, H, L, batch_first=True)),
}
PRECISIONS = [(torch.float32, 1e-6), (torch.float64, 1e-12)]


def build(kind, num_layers=L, **settings):
    torch.manual_seed(5)
    make = KINDS[kind][0]
    return name_streams(Recurrent(make(I if place == 0 else H, H, **settings) for place in range(num_layers)))


def inputs(dtype, names=("hidden",)):
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(B, T, I, dtype=dtype, generator=generator, requires_grad=True)
    state = {name: torch.randn(B, L, H, dtype=dtype, generator=generator).mul_(0.5).requires_grad_() for name in names}
    return x, state


def gradients(out, last, wanted):
    """Returns the gradients of a loss in which every output and the last state count differently."""
    loss = sum(
        (value * torch.linspace(-1, 1, value.numel(), dtype=value.dtype).view_as(value)).sum() for value in (out, *last)
    )
    return torch.autograd.grad(loss, wanted)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_states_and_gradients_are_those_of_torch(kind, fused, dtype, tolerance):
    ours, theirs = build(kind, fused=fused).to(dtype), KINDS[kind][1]().to(dtype)
    pairs = list(zip(ours.parameters(), theirs.parameters(), strict=True))
    with torch.no_grad():
        for own, other in pairs:
            other.copy_(own.uniform_(-0.4, 0.4, generator=torch.Generator().manual_seed(own.numel())))
    x, state = inputs(dtype, ours.state_names)
    out, last = ours(x, None, state)
    given = [state[name].transpose(0, 1) for name in ours.state_names]
    expected, expected_last = theirs(x, tuple(given) if kind == "lstm" else given[0])
    expected_last = expected_last if kind == "lstm" else (expected_last,)
    torch.testing.assert_close(out, expected, rtol=0, atol=tolerance)
    for name, value in zip(ours.state_names, expected_last, strict=True):
        torch.testing.assert_close(last[name], value.transpose(0, 1), rtol=0, atol=tolerance)
    own = gradients(out, last.values(), [x, *state.values(), *(weight for weight, _ in pairs)])
    other = gradients(
        expected,
        [value.transpose(0, 1) for value in expected_last],
        [x, *state.values(), *(weight for _, weight in pairs)],
    )
    scale = max(float(gradient.abs().max()) for gradient in other)
    for one, two in zip(own, other, strict=True):
        assert one.abs().sum() > 0
        torch.testing.assert_close(one, two, rtol=0, atol=tolerance * max(1.0, scale))


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("kind", KINDS)
def test_the_kernel_is_the_cell_written_out(kind, dtype, tolerance):
    fused, stepped = build(kind).to(dtype), build(kind, fused=False).to(dtype)
    x, state = inputs(dtype, fused.state_names)
    (one, one_last), (two, two_last) = fused(x, None, state), stepped(x, None, state)
    torch.testing.assert_close(one, two, rtol=0, atol=tolerance)
    ours = gradients(one, one_last.values(), [x, *fused.parameters()])
    for a, b in zip(ours, gradients(two, two_last.values(), [x, *stepped.parameters()]), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=tolerance * max(1.0, float(b.abs().max())))


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("kind", KINDS)
def test_a_sequence_in_two_stretches_is_the_sequence(kind, fused):
    net = build(kind, fused=fused).double()
    x, _ = inputs(torch.float64)
    whole, end = net(x)
    first, state = net(x[:, :4])
    second, last = net(x[:, 4:], None, state)
    torch.testing.assert_close(torch.cat([first, second], 1), whole, rtol=0, atol=1e-12)
    for name in end:
        assert end[name].shape == (B, L, H)
        torch.testing.assert_close(last[name], end[name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_no_state_is_a_state_of_zeros(kind):
    net = build(kind)
    x, state = inputs(torch.float32, net.state_names)
    zeros = {name: torch.zeros_like(value) for name, value in state.items()}
    assert torch.equal(net(x)[0], net(x, None, zeros)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_future_does_not_reach_the_past(kind):
    net = build(kind).double()
    x, _ = inputs(torch.float64)
    changed = x.detach().clone()
    changed[:, 6:] += 1
    torch.testing.assert_close(net(changed)[0][:, :6], net(x)[0][:, :6], rtol=0, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_as_views_of_one_buffer_are_the_same_weights(kind):
    layer = build(kind).layers[0]
    held = list(layer.parameters(recurse=False))
    packed = _in_one_piece(held)
    assert all(torch.equal(one, two) for one, two in zip(held, packed, strict=True))
    assert len({piece.untyped_storage().data_ptr() for piece in packed}) == 1
    sum(piece.sum() for piece in packed).backward()
    assert all(weight.grad.eq(1).all() for weight in held)


@pytest.mark.parametrize("kind", KINDS)
def test_mixed_precision_runs_the_kernel_in_bf16(kind):
    net = build(kind)
    x, state = inputs(torch.float32, net.state_names)
    with torch.autocast("cpu", torch.bfloat16):
        mixed, last = net(x, None, state)
    assert mixed.dtype == torch.bfloat16
    assert {value.dtype for value in last.values()} == {torch.bfloat16}
    torch.testing.assert_close(mixed.float(), net(x, None, state)[0], rtol=0, atol=0.05)
    mixed.float().sum().backward()
    assert all(weight.grad.dtype == torch.float32 for weight in net.parameters())


# ---- dropout ---------------------------------------------------------------------------------------


def sequence_masks(kind, rng, **settings):
    """Returns which outputs of one layer are zero, (B, T, H)."""
    net = build(kind, 1, **settings)
    return net(inputs(torch.float32)[0], rng)[0].eq(0)


@pytest.mark.parametrize("rng", [Draws(3, 5, 0, B), None])
@pytest.mark.parametrize("kind", ["tanh", "lstm", "gru"])
def test_variational_dropout_has_one_mask_a_sequence(kind, rng):
    shared = sequence_masks(kind, rng, dropout=0.4, variational=True)
    assert torch.equal(shared, shared[:, :1].expand_as(shared))
    assert 0 < shared.float().mean() < 1
    assert not torch.equal(shared[0], shared[1])
    fresh = sequence_masks(kind, rng, dropout=0.4)
    assert not torch.equal(fresh, fresh[:, :1].expand_as(fresh))


@pytest.mark.parametrize(
    "settings", [{"dropout": 0.3}, {"dropout": 0.3, "variational": True}, {"recurrent_dropout": 0.3}]
)
@pytest.mark.parametrize("kind", KINDS)
def test_masks_are_the_same_however_a_batch_is_cut(kind, settings):
    net = build(kind, **settings).double()
    x, _ = inputs(torch.float64)
    whole = net(x, Draws(3, 5, 0, B))[0]
    rows = [net(x[row : row + 1], Draws(3, 5, row, 1))[0] for row in range(B)]
    torch.testing.assert_close(torch.cat(rows), whole, rtol=0, atol=1e-12)
    assert not torch.allclose(net(x, Draws(3, 6, 0, B))[0], whole)
    assert torch.equal(net.eval()(x, Draws(3, 5, 0, B))[0], net(x)[0])


@pytest.mark.parametrize("kind", KINDS)
def test_recurrent_dropout_is_a_recurrent_matrix_without_the_dropped_columns(kind):
    masked = build(kind, 1, recurrent_dropout=0.4).double()
    plain = build(kind, 1).double()
    x, _ = inputs(torch.float64)
    rng = Draws(3, 5, 0, B)
    out = masked(x, rng)[0]
    scale_BH = masked.layers[0].recurrent_dropout.scale(x, H, rng)
    assert set(scale_BH.unique().tolist()) == {0.0, 1 / 0.6}
    weight = plain.layers[0].weight_recurrent
    for row in range(B):
        with torch.no_grad():
            weight.copy_(masked.layers[0].weight_recurrent * scale_BH[row])
        torch.testing.assert_close(plain(x[row : row + 1])[0], out[row : row + 1], rtol=0, atol=1e-12)


def test_variational_masks_keep_their_share_and_their_mean():
    layer = VariationalDropout(0.3)
    for rng in (Draws(3, 5, 0, 101), None):
        scale = layer.scale(torch.zeros(101, 2), 103, rng)
        assert abs(scale.eq(0).float().mean().item() - 0.3) < 0.02
        assert abs(scale.mean().item() - 1) < 0.03
    assert layer.eval().scale(torch.zeros(101, 2), 103, None) is None
    assert VariationalDropout(0.0).scale(torch.zeros(101, 2), 103, None) is None


# ---- the start -------------------------------------------------------------------------------------


def started(kind, *, bias=0.0, **settings):
    layer = build(kind, 1, **settings).layers[0]
    generator = torch.Generator().manual_seed(3)
    layer.headway_init(draw=lambda weight: weight.normal_(generator=generator), bias=bias, generator=generator)
    return layer


@pytest.mark.parametrize("kind", KINDS)
def test_orthogonal_recurrent_matrices_are_one_rotation_a_gate(kind):
    layer = started(kind, recurrent_init="orthogonal")
    blocks = layer.weight_recurrent.detach().split(H)
    assert len(blocks) == len(layer.gates)
    for block in blocks:
        torch.testing.assert_close(block @ block.T, torch.eye(H), rtol=0, atol=1e-5)
    for one, two in itertools.pairwise(blocks):
        assert not torch.allclose(one, two)
    inputs = layer.weight_input.detach()
    assert not torch.allclose(inputs[:H].T @ inputs[:H], torch.eye(I), atol=0.1)


def test_the_scheme_draws_each_gate_as_a_matrix_of_its_own():
    shapes = []
    layer = LSTMLayer(I, H)
    layer.headway_init(
        draw=lambda weight: shapes.append(tuple(weight.shape)) or weight.fill_(len(shapes)), bias=0.0, generator=None
    )
    assert shapes == [(H, I)] * 4 + [(H, H)] * 4
    assert [int(block.unique()) for block in layer.weight_input.split(H)] == [1, 2, 3, 4]
    assert [int(block.unique()) for block in layer.weight_recurrent.split(H)] == [5, 6, 7, 8]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bias", [0.0, 0.1])
def test_the_two_biases_start_at_the_constant_together(kind, bias):
    layer = started(kind, bias=bias)
    assert (layer.bias_input + layer.bias_recurrent).eq(bias).all()


@pytest.mark.parametrize("bias", [0.0, 0.25])
def test_the_forget_gate_alone_starts_open(bias):
    for layer in (started("lstm", bias=bias, forget_bias=1.5), build("lstm", 1, forget_bias=1.5).layers[0]):
        before = bias if layer.bias_input[0] == bias else 0.0
        total = (layer.bias_input + layer.bias_recurrent).detach().split(H)
        for gate, values in zip(layer.gates, total, strict=True):
            assert values.eq(before + (1.5 if gate == "forget" else 0.0)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_layer_is_built_without_memory_on_the_meta_device(kind):
    with torch.device("meta"):
        net = build(kind, recurrent_init="orthogonal")
        assert net(torch.empty(B, T, I))[0].shape == (B, T, H)


def test_an_orthogonal_start_keeps_the_gradient_of_a_linear_net_alive():
    """With f the identity over small values, 200 steps back the gradient has the length it started with."""
    torch.manual_seed(5)
    layer = VanillaLayer(I, 101, recurrent_init="orthogonal").double()
    start = torch.zeros(1, 101, dtype=torch.float64, requires_grad=True)
    out, _ = layer(torch.zeros(1, 199, I, dtype=torch.float64), (start,))
    away = torch.randn(101, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(out[0, -1] @ away, start)
    torch.testing.assert_close(gradient.norm(), away.norm(), rtol=1e-4, atol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU is here")
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_gpus_kernel_is_the_cell_written_out(kind, mixed):
    fused, stepped = build(kind).cuda(), build(kind, fused=False)
    x, _ = inputs(torch.float32)
    with torch.autocast("cuda", torch.bfloat16, enabled=mixed):
        out, _ = fused.eval()(x.detach().cuda())
    assert out.dtype == (torch.bfloat16 if mixed else torch.float32)
    expected, _ = stepped(x)
    torch.testing.assert_close(out.float().cpu(), expected, rtol=0, atol=0.05 if mixed else 1e-3)
    out.float().sum().backward()
    expected.sum().backward()
    for one, two in zip(fused.parameters(), stepped.parameters(), strict=True):
        torch.testing.assert_close(one.grad.cpu(), two.grad, rtol=0.1 if mixed else 1e-2, atol=0.5 if mixed else 1e-2)
