"""Greedy and beam search of transformers' BART: our search over its net against its own `generate`."""

import importlib.util

import pytest
import torch

from headway.nn.beam_search import BEGIN, END, PADDING, beam_search

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("transformers") is None, reason="transformers is not installed here"
)


class BartAsOurs:
    """transformers' BART with the two methods that a search asks for; its state is all that was read."""

    def __init__(self, bart):
        self.bart = bart

    def encode(self, source_BS):
        return self.bart.get_encoder()(source_BS, attention_mask=(source_BS != PADDING).long()).last_hidden_state

    def decode(self, target_BT, memory_BSD, source_BS, rng, state, *, carry):
        read = target_BT if state is None else torch.cat([state["read"], target_BT], dim=1)
        logits = self.bart(
            attention_mask=(source_BS != PADDING).long(),
            encoder_outputs=(memory_BSD,),
            decoder_input_ids=read,
            use_cache=False,
        ).logits
        return logits[:, -target_BT.shape[1] :], {"read": read}


def bart(seed):
    from transformers import BartConfig, BartForConditionalGeneration

    sizes = {f"{part}_{what}": 1 for part in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    config = BartConfig(
        vocab_size=7, d_model=10, encoder_ffn_dim=11, decoder_ffn_dim=11, max_position_embeddings=13, **sizes,
        pad_token_id=PADDING, bos_token_id=BEGIN, eos_token_id=END, decoder_start_token_id=BEGIN,
        forced_eos_token_id=None, dropout=0.0, init_std=1.5,
    )  # fmt: skip
    torch.manual_seed(seed)
    return BartForConditionalGeneration(config).eval()


@pytest.mark.parametrize("seed", [2, 4])
@pytest.mark.parametrize("beam", [1, 4**4])
def test_translations_are_those_of_transformers(seed, beam):
    net = bart(seed)
    source_BS = torch.tensor([[3, 5, 2, 0, 0], [6, 3, 4, 5, 2], [4, 2, 0, 0, 0]])
    kept = min(beam, 64)
    theirs = net.generate(
        source_BS, attention_mask=(source_BS != PADDING).long(), num_beams=beam, max_new_tokens=5, do_sample=False,
        num_return_sequences=kept, early_stopping=False, suppress_tokens=[PADDING, BEGIN],
        **({"length_penalty": 0.0} if beam > 1 else {}),
    )  # fmt: skip
    found = beam_search(BartAsOurs(net), source_BS, beam=beam, length_penalty=0.0, max_length=5)
    lengths = set()
    for ours, their in zip(found, theirs[:, 1:].view(len(found), kept, -1).tolist(), strict=True):
        # Theirs ranks what was cut off among what ended, best first, and repeats <eos> to fill up.
        ended = [sequence[: sequence.index(END) + 1] for sequence in their if END in sequence]
        assert ours.tokens == (ended or their)[0]
        lengths.add(len(ours.tokens))
    assert len(lengths) > 1 or beam == 1
