"""What a trained net does, to be looked at: what it takes for what, what it writes, where it looks, its first filters.

Made once, at a run's end, from the weights of the best checkpoint on the CPU: the same under every strategy. What does
not fit a net or its data is left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from headway.config.contracts import Data
from headway.models import transformer
from headway.nn import attention
from headway.nn.decoding import sample_tokens
from headway.run import RunFolder, read_metrics
from headway.track.media import Media

LARGEST = 30_000_000
"""Weights of a net beyond which one on the CPU takes too long at a run's end."""
_SAMPLES = 512
_ROWS = 100
_SHOWN = 25
_TEXT_TOKENS = 300
_PROMPT_TOKENS = 8
_ATTENTION_TOKENS = 48
_TILE = 64
"""Pixels of a small picture's longer side."""


def show_net(
    run: RunFolder,
    build: Callable[[], nn.Module],
    weights: Mapping[str, Tensor],
    data: Data,
    *,
    step: int,
    seed: int,
    say: Callable[[str], None],
) -> None:
    """Makes a run's images, tables and texts.

    Args:
        run: where to.
        build: returns the net, on the CPU.
        weights: its weights.
        data: what it was trained on.
        step: of the weights.
        seed: of the text that is drawn.
        say: told why there is none, should something go wrong: the run itself is done and well.
    """
    if sum(weight.numel() for weight in weights.values()) > LARGEST:
        return
    media = Media(run)
    try:
        with torch.random.fork_rng(devices=[]):
            net = build()
            net.load_state_dict(dict(weights))
            make_media(media, net, data, step=step, seed=seed)
        gradient_flow(run, media)
    except Exception as error:
        say(f"no more images and tables of {run.id}: {type(error).__name__}: {error}".splitlines()[0])


@torch.no_grad()
def make_media(media: Media, net: nn.Module, data: Data, *, step: int, seed: int) -> None:
    """Adds what there is to see of a net.

    Args:
        media: where to.
        net: on the CPU, with the weights to look at.
        data: what it was trained on.
        step: of the weights.
        seed: of the text that is drawn.
    """
    net.eval()
    spec = data.spec
    if spec.num_classes and spec.input_kind in ("image", "features", "sequence"):
        _judge(media, net, data, step)
    if spec.input_kind == "tokens" and data.decode is not None and not (spec.masked or spec.num_classes):
        _write(media, net, data, step, seed)
    _look(media, net, data, step)
    _filters(media, net, data, step)


def gradient_flow(run: RunFolder, media: Media) -> None:
    """Adds a heat-map of the layers' gradient norms over the steps, where metrics.jsonl has them."""
    rows = [row for row in read_metrics(run.metrics) if any(map(_is_gradient, row))]
    if not rows:
        return
    layers = list(dict.fromkeys(name for row in rows for name in row if _is_gradient(name)))
    norms = np.array([[row.get(layer) or np.nan for row in rows] for layer in layers], dtype=float)
    heat = np.log10(np.maximum(norms, 1e-12))
    low, high = np.nanmin(heat), np.nanmax(heat)
    media.image(
        "gradient-flow", _heat_map((heat - low) / max(high - low, 1e-9), _layer_names(layers)), step=rows[-1]["step"]
    )


def _is_gradient(name: str) -> bool:
    return name.startswith("health/") and name.endswith("/grad_norm")


def _layer_names(metrics: list[str]) -> list[str]:
    return [name.removeprefix("health/").rpartition("/")[0] for name in metrics]


# ---- what it takes for what --------------------------------------------------------------------------------


def _judge(media: Media, net: nn.Module, data: Data, step: int) -> None:
    """Adds a table of predictions, and a picture of the images that it is the most wrong about."""
    batch = data.test.gather(torch.arange(min(_SAMPLES, len(data.test))), epoch=0)
    input_N = batch["input"].to(next(net.parameters()).dtype)
    output_NC = net(input_N)
    if output_NC.ndim != 2:
        return
    probability_NC = torch.softmax(output_NC.float(), 1)
    sure_N, said_N = probability_NC.max(1)
    names = data.spec.class_names or [str(number) for number in range(probability_NC.shape[1])]
    wrong = (said_N != batch["target"]).nonzero()[:, 0]
    wrong = wrong[sure_N[wrong].argsort(descending=True)]
    shown = [*wrong.tolist(), *(said_N == batch["target"]).nonzero()[:, 0].tolist()][:_ROWS]
    rows = [
        [index, names[int(batch["target"][index])], names[int(said_N[index])], round(float(sure_N[index]), 4)]
        for index in shown
    ]
    media.table("predictions", ["sample", "is", "taken for", "probability"], rows, step=step)
    shape = _image_shape(data)
    if shape is not None and len(wrong):
        worst = wrong[:_SHOWN].tolist()
        labels = [f"{names[int(batch['target'][index])]} > {names[int(said_N[index])]}" for index in worst]
        media.image("misclassified", _grid([input_N[index].reshape(shape) for index in worst], labels), step=step)


def _image_shape(data: Data) -> tuple[int, ...] | None:
    """Returns channels, height and width of a sample that is an image, flattened or not; None for any other."""
    if data.spec.input_kind == "image":
        return data.spec.input_shape
    image = data.reading.get("image") or {}
    shape = tuple(image.get(name, 0) for name in ("channels", "height", "width"))
    return shape if data.spec.input_shape == (math.prod(shape),) else None


# ---- what it writes ----------------------------------------------------------------------------------------


def _write(media: Media, net: nn.Module, data: Data, step: int, seed: int) -> None:
    """Adds a text that goes on from the beginning of the test part."""
    assert data.decode is not None
    prompt = data.test.gather(torch.tensor([0]), epoch=0)["input"][0][:_PROMPT_TOKENS].tolist()
    generator = torch.Generator().manual_seed(seed)
    drawn = list(sample_tokens(net, prompt, _TEXT_TOKENS, generator=generator))
    media.text("generated", data.decode([*prompt, *drawn]) + "\n", step=step)


# ---- where it looks ----------------------------------------------------------------------------------------


def _look(media: Media, net: nn.Module, data: Data, step: int) -> None:
    """Adds the attention weights of the first test sample: a row a layer, a column a head."""
    if data.spec.input_kind != "tokens":
        return
    token_1T = data.test.gather(torch.tensor([0]), epoch=0)["input"][:, :_ATTENTION_TOKENS]
    with _watched_attention() as layers:
        net(token_1T)
    if not layers:
        return
    heads = max(weights_HTS.shape[0] for weights_HTS in layers)
    picture = Image.new("RGB", (heads * (2 * _TILE + 4), len(layers) * (2 * _TILE + 4)), "white")
    for row, weights_HTS in enumerate(layers):
        for column, weights_TS in enumerate(weights_HTS):
            # Each query by its own strongest key: the first has but one, and would outshine all others.
            tile = _coloured((weights_TS / weights_TS.amax(1, keepdim=True).clamp(min=1e-9)).numpy())
            tile = tile.resize((2 * _TILE, 2 * _TILE), Image.Resampling.NEAREST)
            picture.paste(tile, (column * (2 * _TILE + 4), row * (2 * _TILE + 4)))
    media.image("attention", picture, step=step)


@contextmanager
def _watched_attention() -> Iterator[list[Tensor]]:
    """Has attention run as its readable reference, and gives the weights (H, T, S) of each layer's first row."""
    seen: list[Tensor] = []

    def attend(
        query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, *, causal: bool = False
    ) -> Tensor:
        if causal:
            past = attention.causal_mask(query.shape[2], key.shape[2], query.device)
            mask = past if mask is None else mask & past
        mixed, weights = attention.attend(query, key, value, mask)
        seen.append(weights[0].float())
        return mixed

    places: list[Any] = [attention, transformer]
    fused = attention.attend_fused
    for place in places:
        place.attend_fused = attend
    try:
        yield seen
    finally:
        for place in places:
            place.attend_fused = fused


# ---- its first filters -------------------------------------------------------------------------------------


def _filters(media: Media, net: nn.Module, data: Data, step: int) -> None:
    """Adds the weights that meet the pixels: a convolution's, or a linear layer's in the image's shape."""
    shape = _image_shape(data)
    if shape is None:
        return
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            kernels = module.weight.float()
        elif isinstance(module, nn.Linear) and module.in_features == math.prod(shape):
            kernels = module.weight.float().reshape(-1, *shape)
        else:
            continue
        if kernels.shape[1] not in (1, 3) or kernels.shape[2] * kernels.shape[3] < 4:
            return
        media.image("first-filters", _grid(list(kernels[: 8 * 8])), step=step)
        return


# ---- pictures ----------------------------------------------------------------------------------------------


def _grid(images: list[Tensor], labels: list[str] | None = None) -> Image.Image:
    """Returns small pictures side by side, each stretched to the whole range of grey or colour."""
    columns = math.ceil(math.sqrt(len(images)))
    height = _TILE + (12 if labels else 0) + 4
    picture = Image.new("RGB", (columns * (_TILE + 4), math.ceil(len(images) / columns) * height), "white")
    draw = ImageDraw.Draw(picture)
    for index, image_CHW in enumerate(images):
        left, top = index % columns * (_TILE + 4), index // columns * height
        picture.paste(_tile(image_CHW.float()), (left, top))
        if labels:
            draw.text((left, top + _TILE), labels[index][:12], fill="black")
    return picture


def _tile(image_CHW: Tensor) -> Image.Image:
    low, high = image_CHW.min(), image_CHW.max()
    pixel_CHW = ((image_CHW - low) / (high - low).clamp(min=1e-9) * 255).to(torch.uint8)
    pixel_HWC = (pixel_CHW if len(pixel_CHW) == 3 else pixel_CHW[:1].expand(3, -1, -1)).permute(1, 2, 0)
    return Image.fromarray(pixel_HWC.contiguous().numpy()).resize((_TILE, _TILE), Image.Resampling.NEAREST)


def _heat_map(values: np.ndarray[Any, Any], labels: list[str]) -> Image.Image:
    """Returns rows of values between 0 and 1 as bands of colour under each other, with their labels."""
    band, width, margin = 16, 640, 180
    picture = Image.new("RGB", (margin + width, band * len(labels)), "white")
    heat = _coloured(np.nan_to_num(values)).resize((width, band * len(labels)), Image.Resampling.NEAREST)
    picture.paste(heat, (margin, 0))
    draw = ImageDraw.Draw(picture)
    for row, label in enumerate(labels):
        draw.text((2, row * band + 2), label[-28:], fill="black")
    return picture


def _coloured(values: np.ndarray[Any, Any]) -> Image.Image:
    """Returns a picture of values between 0 and 1, from dark blue over red to pale yellow."""
    stops = np.array([[8, 12, 60], [120, 28, 110], [230, 90, 50], [252, 250, 190]], dtype=float)
    places = np.linspace(0, 1, len(stops))
    channels = [np.interp(values, places, stops[:, channel]) for channel in range(3)]
    return Image.fromarray(np.stack(channels, -1).astype(np.uint8))
