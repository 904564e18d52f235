"""Text from a language model: one token after the other, each drawn from the distribution that the net gives it.

The logits are divided by a temperature; then only the `top_k` likeliest tokens stay (Fan, Lewis and Dauphin 2018,
section 5.1), and of those the fewest that hold `top_p` of the probability (Holtzman et al. 2020, section 3.1).
A temperature of 0 takes the likeliest token.

The net goes on from its state, so a token costs one step. A net with learned positions (`max_positions`) that has
used them all reads its last tokens again for each new one: every token moves by one place, and what was
computed at the old places is no longer true.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from headway.config.errors import UserError


@torch.no_grad()
def sample_tokens(
    net: nn.Module,
    prompt: Sequence[int],
    num_tokens: int,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> Iterator[int]:
    """Yields the tokens that follow a prompt, each as soon as it is drawn.

    Args:
        net: a language model, `forward(token_BT, rng, state, carry=True) -> (logits, state)`, in evaluation mode.
        prompt: its tokens; of more than the net has positions, the last ones are read.
        num_tokens: how many to draw.
        temperature: 1 is the net's own distribution, less is nearer to the likeliest token, which is 0.
        top_k: number of likeliest tokens to draw from.
        top_p: probability that the tokens to draw from hold together.
        generator: of the draws, on the CPU; the library's own when absent.

    Raises:
        UserError: nothing to start from, or a setting out of range.
    """
    _check(prompt, temperature, top_k, top_p)
    device = next(net.parameters()).device
    positions = getattr(net, "max_positions", None)
    seen = list(prompt) if positions is None else list(prompt)[-positions:]
    reading, state = seen, None
    for _ in range(num_tokens):
        logits_1TV, state = net(torch.tensor([reading], device=device), None, state, carry=True)
        logits_V = logits_1TV[0, -1].float().cpu()
        token = pick(logits_V, temperature=temperature, top_k=top_k, top_p=top_p, generator=generator)
        yield token
        reading = [token]
        if positions is not None:
            seen.append(token)
            if len(seen) > positions:
                seen = seen[-positions:]
                reading, state = seen, None


def pick(
    logits_V: Tensor,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
) -> int:
    """Returns one token drawn from these logits."""
    if temperature == 0.0:
        return int(logits_V.argmax())
    probability_V = torch.softmax(keep_likeliest(logits_V / temperature, top_k=top_k, top_p=top_p), dim=0)
    return int(torch.multinomial(probability_V, 1, generator=generator))


def keep_likeliest(logits_V: Tensor, *, top_k: int | None = None, top_p: float | None = None) -> Tensor:
    """Returns the logits with -inf for what is not to be drawn; the likeliest token always stays."""
    if top_k is not None and top_k < len(logits_V):
        least = logits_V.topk(top_k).values[-1]
        logits_V = logits_V.masked_fill(logits_V < least, -torch.inf)
    if top_p is not None and top_p < 1.0:
        sorted_V, order_V = logits_V.sort(descending=True)
        probability_V = torch.softmax(sorted_V, dim=0)
        # A token is left out where those before it hold enough already.
        beyond_V = probability_V.cumsum(0) - probability_V >= top_p
        beyond_V[0] = False
        logits_V = logits_V.masked_fill(torch.zeros_like(beyond_V).scatter(0, order_V, beyond_V), -torch.inf)
    return logits_V


def _check(prompt: Sequence[int], temperature: float, top_k: int | None, top_p: float | None) -> None:
    if not prompt:
        raise UserError("prompt: is empty; the net needs one token at least to go on from")
    if not 0.0 <= temperature < float("inf"):
        raise UserError(f"temperature: is {temperature}; it should be 0 (the likeliest token) or more")
    if top_k is not None and top_k < 1:
        raise UserError(f"top_k: is {top_k}; it should be 1 or more")
    if top_p is not None and not 0.0 < top_p <= 1.0:
        raise UserError(f"top_p: is {top_p}; it should be above 0 and at most 1")
