"""Tables of your own, from CSV and from Parquet."""

import datetime

import numpy as np
import pyarrow
import pytest
import torch
from pyarrow import csv, parquet

from headway.config.errors import UserError
from headway.config.section import validate_section
from headway.data import table

pytestmark = pytest.mark.quick

ROWS = 53


@pytest.fixture
def columns():
    generator = np.random.default_rng(23)
    return {
        "age": generator.integers(20, 70, ROWS).tolist(),
        "height": generator.normal(170, 10, ROWS).tolist(),
        "town": generator.choice(["Ulm", "Bonn", "Kiel"], ROWS).tolist(),
        "smokes": generator.choice([True, False], ROWS).tolist(),
        "ill": generator.choice(["no", "yes"], ROWS).tolist(),
        "cost": generator.normal(1000, 300, ROWS).tolist(),
    }


def write(path, columns):
    made = pyarrow.table(columns)
    (csv.write_csv if path.suffix == ".csv" else parquet.write_table)(made, str(path))
    return path


def load(path, **settings):
    section = {"kind": "table", "seed": 5, "path": str(path), "target": ["ill"], "task": "classify", **settings}
    return validate_section(table.Config, section, path="data").load()


def everything(split):
    return split.gather(torch.arange(len(split)), epoch=0)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_columns_become_features_and_classes(tmp_path, columns, suffix):
    data = load(write(tmp_path / f"people.{suffix}", columns))
    names = ("age", "height", "town=Bonn", "town=Kiel", "town=Ulm", "smokes", "cost")
    assert data.spec.feature_names == names
    assert data.spec.input_shape == (7,)
    assert data.spec.class_names == ("no", "yes")
    assert (len(data.train), len(data.validation), len(data.test)) == (37, 8, 8)
    towns = everything(data.test)["input"][:, 2:5]
    assert torch.equal(towns.sum(1), torch.ones(8))


def test_csv_and_parquet_of_the_same_table_give_the_same_samples(tmp_path, columns):
    one, two = (load(write(tmp_path / f"people.{suffix}", columns)) for suffix in ("csv", "parquet"))
    torch.testing.assert_close(everything(one.train)["input"], everything(two.train)["input"])
    assert torch.equal(everything(one.train)["target"], everything(two.train)["target"])


def test_numbers_are_standardised_on_the_training_part(tmp_path, columns):
    data = load(write(tmp_path / "people.csv", columns))
    numbers = everything(data.train)["input"][:, [0, 1, 5, 6]]
    torch.testing.assert_close(numbers.mean(0), torch.zeros(4), atol=1e-5, rtol=0)
    torch.testing.assert_close(numbers.std(0, correction=0), torch.ones(4))
    assert everything(data.test)["input"][:, [0, 1]].mean(0).abs().max() > 0.01


def test_no_row_is_lost_or_in_two_parts(tmp_path, columns):
    columns["age"] = list(range(ROWS))
    data = load(write(tmp_path / "people.csv", columns), features=["age"])
    ages = torch.cat([everything(part)["input"] for part in (data.train, data.validation, data.test)])
    assert len(torch.unique(ages)) == ROWS


def test_the_seed_draws_the_parts(tmp_path, columns):
    path = write(tmp_path / "people.csv", columns)
    first, again, other = (everything(load(path, seed=seed).train)["input"] for seed in (5, 5, 6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_category_that_training_lacks_is_zero_everywhere(tmp_path, columns):
    path = write(tmp_path / "people.csv", columns)
    parts = validate_section(
        table.Config,
        {"kind": "table", "seed": 5, "path": str(path), "target": ["ill"], "task": "classify"},
        path="data",
    ).parts(ROWS)
    columns["town"][int(parts[2][3])] = "Rom"
    data = load(write(path, columns))
    assert "town=Rom" not in data.spec.feature_names
    assert everything(data.test)["input"][3, 2:5].tolist() == [0, 0, 0]


@pytest.mark.parametrize("standardise", [True, False])
def test_several_real_targets_are_regressed(tmp_path, columns, standardise):
    path = write(tmp_path / "people.csv", columns)
    data = load(path, target=["cost", "age"], task="regress", standardise_target=standardise)
    assert data.spec.target_size == 2
    assert data.spec.num_classes is None
    target = everything(data.train)["target"]
    assert target.shape == (37, 2)
    assert target.dtype == torch.float32
    mean = target.mean(0)
    assert (mean.abs().max() < 1e-5) == standardise
    assert standardise or mean[0] > 500


def test_whole_numbers_are_classes_in_their_order(tmp_path, columns):
    columns["ill"] = [(2, 10, 1)[row % 3] for row in range(ROWS)]
    assert load(write(tmp_path / "people.csv", columns)).spec.class_names == ("1", "2", "10")


def test_another_delimiter_is_read(tmp_path):
    path = tmp_path / "people.csv"
    path.write_text("age;ill\n" + "".join(f"{row};{row % 2}\n" for row in range(ROWS)), encoding="utf-8")
    assert load(path, delimiter=";").spec.feature_names == ("age",)


def test_dictionary_columns_of_parquet_are_categories(tmp_path, columns):
    columns["town"] = pyarrow.array(columns["town"]).dictionary_encode()
    assert "town=Bonn" in load(write(tmp_path / "people.parquet", columns)).spec.feature_names


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
@pytest.mark.parametrize("column", ["age", "height", "town", "smokes", "ill"])
def test_a_missing_value_is_named_by_row_and_column(tmp_path, columns, suffix, column):
    columns[column][6] = columns[column][9] = None
    with pytest.raises(UserError, match=rf"row 7 of .* has no value in column '{column}' \(2 such rows\)"):
        load(write(tmp_path / f"people.{suffix}", columns))


def test_an_infinite_value_is_refused(tmp_path, columns):
    columns["height"][6] = float("inf")
    with pytest.raises(UserError, match=r"row 7 of .* has an infinite value in column 'height'"):
        load(write(tmp_path / "people.parquet", columns))


def test_a_column_that_is_left_out_may_have_gaps(tmp_path, columns):
    columns["age"][6] = None
    assert load(write(tmp_path / "people.csv", columns), features=["height"]).spec.input_shape == (1,)


@pytest.mark.parametrize("setting", ["target", "features"])
def test_an_unknown_column_gets_a_suggestion(tmp_path, columns, setting):
    with pytest.raises(UserError, match=rf"^data\.{setting}: .* has no column 'costs'; did you mean cost\?"):
        load(write(tmp_path / "people.csv", columns), **{setting: ["costs"]})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": ["height"]}, "height of .* has fractions, which are no classes; set data.task: regress"),
        ({"target": ["ill"], "task": "regress"}, r"ill of .* is text \('"),
        ({"target": ["ill", "town"]}, "classify takes one column"),
        ({"features": ["ill", "age"]}, "^data.features: ill is also in data.target"),
        ({"features": ["age", "age"]}, "names a column twice"),
        ({"max_categories": 2}, "^data.max_categories: 2, but column 'town' of .* has 3 of them"),
        ({"target": []}, r"^data\.target: "),
    ],
)
def test_a_setting_that_does_not_fit_the_table_is_refused(tmp_path, columns, settings, message):
    with pytest.raises(UserError, match=message):
        load(write(tmp_path / "people.csv", columns), **settings)


def test_one_class_only_is_refused(tmp_path, columns):
    columns["ill"] = ["no"] * ROWS
    with pytest.raises(UserError, match=r"ill of .* is no in every row"):
        load(write(tmp_path / "people.csv", columns))


def test_a_column_of_dates_is_refused_until_it_is_left_out(tmp_path, columns):
    columns["born"] = [datetime.date(1990, 1, 1)] * ROWS
    path = write(tmp_path / "people.parquet", columns)
    with pytest.raises(UserError, match=r"column 'born' of .* is date32\[day\], neither numbers nor text"):
        load(path)
    assert load(path, features=["age"]).spec.input_shape == (1,)


def test_a_table_of_its_target_only_is_refused(tmp_path, columns):
    with pytest.raises(UserError, match=r"^data\.target: ill is all that .* has"):
        load(write(tmp_path / "people.csv", {"ill": columns["ill"]}))


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("a.csv", b"", "cannot be read"),
        ("a.csv", b"age,ill\n", "has no rows"),
        ("a.csv", b"age,ill\n1,2\n3\n", "cannot be read"),
        ("a.csv", b"age,ill,age\n1,2,3\n", "has two columns 'age'"),
        ("a.parquet", b"PAR1 no it is not", "cannot be read"),
        ("a.xlsx", b"PK", "is neither .csv, .csv.gz nor .parquet"),
    ],
)
def test_a_file_that_is_no_table_is_named(tmp_path, name, content, problem):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=rf"^data\.path: {tmp_path}/{name} {problem}") as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(UserError, match=rf"^data\.path: {tmp_path}/none\.csv is not there"):
        load(tmp_path / "none.csv")
