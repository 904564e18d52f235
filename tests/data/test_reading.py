"""A raw input read by what data.json says is, to the bit, the sample that the split holds."""

from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from PIL import Image

from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.data import breast_cancer, diabetes, digits, image_folder, mnist, table, text_folder, two_moons
from headway.data._reading import plain_spec, read_inputs, to_target_unit, vocabulary_of

pytestmark = pytest.mark.quick


def load(module, **settings):
    kind = module.__name__.rpartition(".")[2]
    return validate_section(module.Config, {"kind": kind, "seed": 5, **settings}, path="data").load()


def read(data, *given):
    """Reads inputs by what is left of the data in a run folder: JSON."""
    tree = json.loads(json.dumps({"spec": asdict(data.spec), "reading": data.reading}))
    spec = plain_spec(tree["spec"])
    assert spec == data.spec
    return read_inputs(given, spec=spec, reading=tree["reading"])


def everything(split):
    return split.gather(torch.arange(len(split)), epoch=0)["input"]


def rows_equal(found, pool):
    """Whether each row is one of the pool's."""
    return all((row == pool).flatten(1).all(1).any() for row in found)


@pytest.mark.parametrize("layout", ["features", "image"])
def test_a_digit_in_a_file_is_the_digit_of_the_data(tmp_path, layout):
    from sklearn.datasets import load_digits

    data = load(digits, layout=layout)
    paths = []
    for place, image in enumerate(load_digits().images[:7]):
        paths.append(str(tmp_path / f"{place}.png"))
        Image.fromarray((image * 255 / 16).round().astype(np.uint8)).save(paths[-1])
    found = read(data, *paths)
    assert found.labels == paths
    assert found.rows == [1] * 7
    assert rows_equal(found.values, torch.cat([everything(part) for part in (data.train, data.validation, data.test)]))


def test_colours_become_grey_and_another_size_is_resized_and_cropped(tmp_path):
    data = load(digits, layout="image")
    grey = np.random.default_rng(3).integers(0, 256, (8, 8), np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    Image.fromarray(np.repeat(grey[:, :, None], 3, 2)).save(tmp_path / "colour.png")
    wide = np.pad(np.kron(grey, np.ones((4, 4), np.uint8)), ((0, 0), (12, 12)), constant_values=255)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    flat = np.full((5, 7), 99, np.uint8)
    Image.fromarray(flat).save(tmp_path / "flat.png")
    Image.fromarray(grey.astype(np.uint16) * 256 + 7).save(tmp_path / "deep.png")
    same = read(data, *(str(tmp_path / name) for name in ("grey.png", "colour.png", "deep.png"))).values
    assert torch.equal(same[0], same[1])
    assert torch.equal(same[0], same[2])
    assert read(data, str(tmp_path / "wide.png")).values.shape == (1, 1, 8, 8)
    assert len(read(data, str(tmp_path / "flat.png")).values.unique()) == 1


@pytest.mark.parametrize("layout", ["features", "image"])
def test_padding_and_scaling_of_idx_images_are_those_of_the_data(tmp_path, layout):
    pixels = np.random.default_rng(3).integers(0, 256, (11, 5, 7), np.uint8)
    for prefix in ("train", "t10k"):
        header = bytes([0, 0, 8, 3]) + np.array(pixels.shape, ">u4").tobytes()
        (tmp_path / f"{prefix}-images-idx3-ubyte").write_bytes(header + pixels.tobytes())
        labels = bytes([0, 0, 8, 1, 0, 0, 0, 11, *range(10), 0])
        (tmp_path / f"{prefix}-labels-idx1-ubyte").write_bytes(labels)
    data = load(mnist, folder=str(tmp_path), layout=layout, pad=2)
    Image.fromarray(pixels[4]).save(tmp_path / "4.png")
    assert torch.equal(read(data, str(tmp_path / "4.png")).values[0], everything(data.test)[4])


def test_a_photograph_is_read_as_the_folder_reads_it(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / "train" / name).mkdir(parents=True)
        for place in range(5):
            noise = np.random.default_rng(place).integers(0, 256, (37, 53, 3), np.uint8)
            Image.fromarray(noise).save(tmp_path / "train" / name / f"{place}.jpg")
    data = load(image_folder, folder=str(tmp_path), size=13, validation=0.3)
    path = data.test.samples[1][0]
    assert torch.equal(read(data, path).values, everything(data.test)[1:2])


@pytest.mark.parametrize("module", [breast_cancer, diabetes])
def test_a_row_of_values_is_the_sample_of_the_data(module):
    from sklearn import datasets

    values = (
        datasets.load_breast_cancer().data if module is breast_cancer else datasets.load_diabetes(scaled=False).data
    )
    data = load(module)
    found = read(data, *(",".join(map(repr, map(float, row))) for row in values[:5]))
    assert rows_equal(found.values, torch.cat([everything(part) for part in (data.train, data.validation, data.test)]))


def test_a_prediction_comes_back_in_the_targets_unit():
    from sklearn.datasets import load_diabetes

    data = load(diabetes)
    target = data.test.gather(torch.arange(len(data.test)), epoch=0)["target"]
    unit = to_target_unit(target, data.reading)
    assert set(unit.flatten().round().int().tolist()) <= set(load_diabetes(scaled=False).target.astype(int).tolist())
    assert torch.equal(to_target_unit(target, {}), target.double())


@pytest.fixture
def people(tmp_path):
    rows = [f"{place % 7 - 3.5},{['red', 'green', 'blue'][place % 3]},{place},{place % 2}" for place in range(60)]
    path = tmp_path / "people.csv"
    path.write_text("\n".join(["age,colour,debt,late", *rows]) + "\n")
    return path


def test_a_tables_rows_are_read_by_their_names_whatever_their_order(people, tmp_path):
    data = load(table, path=str(people), target=["late"], task="classify")
    file = tmp_path / "new.csv"
    file.write_text("debt,late,age,colour\n7,1,-3.5,green\n8,0,-2.5,blue\n")
    found = read(data, str(file))
    assert found.labels == [f"{file} row 1", f"{file} row 2"]
    assert torch.equal(found.values, read(data, "-3.5,green,7", "-2.5, blue, 8").values)
    assert rows_equal(found.values, torch.cat([everything(part) for part in (data.train, data.validation, data.test)]))
    file.write_text("-3.5,green,7\n-2.5,blue,8\n")
    assert torch.equal(read(data, str(file)).values, found.values)


def test_a_category_that_training_never_saw_is_told(people):
    data = load(table, path=str(people), target=["late"], task="classify")
    found = read(data, "1,pink,2")
    assert found.notes == ["1,pink,2: the run never saw 'pink' in 'colour'"]
    assert found.values[0, 1:4].tolist() == [0, 0, 0]


def test_points_that_are_not_scaled_are_read_as_they_are():
    assert read(load(two_moons), "0.5,-1e-3").values.tolist() == [pytest.approx([0.5, -1e-3])]


def test_a_text_is_cut_as_the_data_cuts_it(tmp_path):
    for name, words in (("a", "one two three "), ("b", "four five six ")):
        (tmp_path / name).mkdir()
        for place in range(7):
            (tmp_path / name / f"{place}.txt").write_text(words * (5 + place))
    data = load(text_folder, path=str(tmp_path), sequence_length=11, vocab_size=270)
    path = tmp_path / "a" / "3.txt"
    found = read(data, str(path), path.read_text(), "one")
    several = found.rows[0]
    assert several > 1
    assert found.rows == [several, several, 1]
    assert torch.equal(found.values[:several], found.values[several : 2 * several])
    everywhere = torch.cat([everything(part) for part in (data.train, data.validation, data.test)])
    assert rows_equal(found.values[:several], everywhere)
    assert vocabulary_of(data.reading).decode(found.values[-1].tolist()).startswith("[CLS]one[SEP]")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("1,2", r"INPUT: 1,2 has 2 values, and this run reads 3 \(age, colour, debt\)"),
        ("1", r"INPUT: 1 has 1 value, and this run reads 3"),
        ("x,red,3", r"INPUT: x,red,3 has 'x' in 'age', which is no number"),
        ("nan,red,3", r"has 'nan' in 'age', which is no number"),
        ("none.csv", r"INPUT: none.csv cannot be read \(No such file or directory\)"),
        ("{lacking}", r"INPUT: .*lacking.csv has no column 'debt'; did you mean dept\?"),
        ("{ragged}", r"INPUT: .*ragged.csv row 1 has 2 values and its header 3 names"),
        ("{empty}", r"INPUT: .*empty.csv has no rows"),
        ("{binary}", r"INPUT: .*binary.csv is no CSV file"),
    ],
)
def test_a_row_that_does_not_fit_is_refused_in_one_line(people, tmp_path, given, message):
    data = load(table, path=str(people), target=["late"], task="classify")
    contents = {
        "lacking": b"age,colour,dept\n1,red,2\n",
        "ragged": b"age,colour,debt\n1,red\n",
        "empty": b"age,colour,debt\n",
        "binary": b"\xff\xfe\x00\x81",
    }
    for name, content in contents.items():
        (tmp_path / f"{name}.csv").write_bytes(content)
    given = given.format(**{name: tmp_path / f"{name}.csv" for name in contents})
    with pytest.raises(UserError, match=message) as caught:
        read(data, given)
    assert "\n" not in str(caught.value)


def test_what_is_no_image_is_refused_in_one_line(tmp_path):
    (tmp_path / "notes.png").write_text("no picture")
    data = load(digits)
    with pytest.raises(UserError, match=r"INPUT: .*notes.png cannot be decoded"):
        read(data, str(tmp_path / "notes.png"))
    with pytest.raises(UserError, match=r"INPUT: 1,2,3 is not there; this run reads image files"):
        read(data, "1,2,3")
