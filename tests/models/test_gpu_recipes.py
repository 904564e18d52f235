"""Recipes for a GPU: at full size on no device, and at reduced width through a forward pass here."""

import pytest
import torch

from headway.config.contracts import DataSpec
from headway.config.shipped import shipped_recipes
from headway.recipe import load_recipe

pytestmark = pytest.mark.quick

B = 2
NAMES = [
    name for name, path in shipped_recipes().items() if "# Expect: for a GPU; not measured here." in path.read_text()
]
WEIGHTS = {
    "alexnet-imagenet": 60_965_224,
    "resnet50-imagenet": 25_557_032,
    "gpt2-124m-python": 124_439_808,
    "bert-base-python": 110_106_428,
    "transformer-base-pairs": 63_082_496,
}
SMALL = {"num_layers": 2, "width": 8, "hidden": 16, "scale": 0.02}
"""Settings of size, where a model has them; a head has a width of 4."""


def spec_of(data, *, vocab_size=None):
    """Returns what the data would be, were it here."""
    match data.kind:
        case "cifar10":
            return DataSpec("image", (3, 32, 32), num_classes=10)
        case "mnist":
            side = 28 + 2 * data.pad
            return DataSpec("image", (1, side, side), num_classes=10)
        case "image_folder":
            return DataSpec("image", (3, data.size, data.size), num_classes=1000)
        case "text":
            return DataSpec("tokens", (data.sequence_length,), vocab_size=vocab_size or data.vocab_size)
        case "masked_text":
            size = vocab_size or data.vocab_size
            return DataSpec("tokens", (data.sequence_length,), vocab_size=size, masked=True)
        case "translation":
            size, length = vocab_size or data.vocab_size, data.max_length
            return DataSpec("pairs", (length,), vocab_size=size, target_length=length)
    raise AssertionError(f"no spec for data of kind {data.kind}")


def reduced(model):
    """Returns the model's config with few layers and little width, and every other setting as it was."""
    fields = type(model).model_fields
    changes = {name: value for name, value in SMALL.items() if name in fields}
    if "num_heads" in fields:
        changes["width"] = 4 * model.num_heads
    return type(model).model_validate({**model.model_dump(), **changes})


def inputs(spec):
    generator = torch.Generator().manual_seed(3)

    def tokens(length):
        # 0 is padding.
        return torch.randint(1, spec.vocab_size, (B, length), generator=generator)

    if spec.input_kind == "image":
        return (torch.randn(B, *spec.input_shape, generator=generator),)
    if spec.input_kind == "pairs":
        return tokens(spec.input_shape[0]), tokens(spec.target_length)
    return (tokens(spec.input_shape[0]),)


def test_those_that_are_for_a_gpu_are_found():
    assert {"alexnet-cifar10", "resnet34-cifar10", "plain34-cifar10", *WEIGHTS} <= set(NAMES)
    assert all("for a GPU" not in path.read_text() for name, path in shipped_recipes().items() if name not in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_for_a_gpu_builds_at_full_size_on_no_device(name):
    recipe = load_recipe(name)
    spec = spec_of(recipe.data)
    with torch.device("meta"):
        net = recipe.model.build(spec)
    count = sum(weight.numel() for weight in net.parameters())
    assert count == WEIGHTS.get(name, count)
    assert count > 1_000_000
    for technique in recipe.regularize.values():
        technique.check(spec, recipe.strategy)
    if recipe.objective is not None:
        recipe.objective.check(spec)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_for_a_gpu_passes_a_forward_pass_at_reduced_width(name):
    recipe = load_recipe(name)
    spec = spec_of(recipe.data, vocab_size=101)
    net = reduced(recipe.model).build(spec).eval()
    assert sum(weight.numel() for weight in net.parameters()) < 1_000_000
    with torch.no_grad():
        out = net(*inputs(spec))
    if spec.masked:
        assert out.next_logits.shape == (B, 2)
        out = out.token_logits
    length = spec.target_length or spec.input_shape[0]
    assert out.shape == ((B, spec.num_classes) if spec.num_classes else (B, length, spec.vocab_size))
    assert out.isfinite().all()
