"""A text's tokens as a net reads them that classifies texts: between special tokens, with padding where they are few.

Source: Devlin et al. 2018, section 3 and figure 4b.

Shapes: S tokens of a text, N windows, T tokens of a window, L = T - 2 of them text.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headway.data._vocabulary import SpecialTokens

_PADDING = 0


def frame(token_S: NDArray[np.int32], length: int, special: SpecialTokens) -> Tensor:
    """Returns int64 (N, length): a text's full windows between special tokens, what is left over dropped.

    A text shorter than a window is one sample, with padding.
    """
    L = length - 2
    num_windows = max(1, len(token_S) // L)
    text_NL = np.full((num_windows, L), _PADDING, np.int64)
    kept = token_S[: num_windows * L]
    text_NL.reshape(-1)[: len(kept)] = kept
    framed_NT = np.full((num_windows, length), _PADDING, np.int64)
    framed_NT[:, 0], framed_NT[:, 1:-1] = special.first, text_NL
    last_N = 1 + np.minimum(L, len(kept) if num_windows == 1 else L)
    framed_NT[:, last_N] = special.end
    return torch.from_numpy(framed_NT)
