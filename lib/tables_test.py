"""Tables are read, split and separated into X and y; errors are explained in one line."""

import gzip
import re

import numpy as np
import pandas as pd
import pytest

from lib.errors import UserError
from lib.tables import (
    Rows,
    check_classes,
    check_finite,
    check_numbers,
    check_same_classes,
    numbers_with_values,
    read_table,
    rows_by_split,
    with_splits,
    without_columns,
)

pytestmark = pytest.mark.unittest


@pytest.fixture
def frame():
    kinds = np.array(["a", "b"])[np.arange(200) % 4 // 3]
    return pd.DataFrame({"size": np.arange(200.0), "kind": kinds, "price": np.arange(200) * 2.5})


def test_a_table_is_read_as_it_was_saved(frame, tmp_path):
    frame.to_csv(tmp_path / "table.csv", index=False)
    pd.testing.assert_frame_equal(read_table(tmp_path / "table.csv"), frame, check_dtype=False)


PACKED = gzip.compress(b"a,y\n1,2\n", mtime=0)  # bytes 4 to 7 are the time


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "table.csv is missing: `make run`"),
        (b"", "table.csv is not a table in CSV"),
        (b"a,b\n", "table.csv has no rows"),
        (b"a\n\xff\xfe\n", "table.csv is not a table in CSV: .* Convert it to CSV in UTF-8"),
        ("name,y\nMüller,1\n".encode("latin-1"), r"no text in UTF-8 \(.*\)\. Convert it to CSV"),
        pytest.param(PACKED, "no text in UTF-8 .* or unpack it", id="gzip"),
        pytest.param(PACKED[:4] + b'\n"' + PACKED[6:], "no text in UTF-8 .* or unpack", id="quote"),
        (b"a;b;y\n1;2;3\n", "table.csv has one column, 'a;b;y': commas are expected"),
        (b"a\ty\n", r"table.csv has one column, 'a\\ty': commas are expected"),
        (b"a;b\n1,5;2,5\n", "table.csv has one column, 'a;b': commas .* and points in numbers"),
        (b"a|b\n1|2\n", r"table.csv has one column, 'a\|b': commas are expected"),
        (b"sep=,\na,b,y\n1,2,3\n", r"more values than there are names .* \('sep=', ''\)"),
        (b'a\n"1', "table.csv is not a table in CSV"),
        (b"a,y\n1,2\n" + bytes(9), "byte of 0 in column 'a', row 1 .* or fetch it again"),
        (b"a,y\n1,2\n,x\0\n", "byte of 0 in column 'y', row 1"),
        ("a,y\n1,2\n".encode("utf-16-le"), "byte of 0 in the line of names.* Convert it to UTF-8"),
    ],
)
def test_a_file_that_is_not_a_table_is_named(tmp_path, content, message):
    if content is not None:
        (tmp_path / "table.csv").write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_table(tmp_path / "table.csv")


def test_a_damaged_compressed_file_is_named(tmp_path):
    whole = gzip.compress(b"a,y\n" + b"1,2\n" * 1000)
    for name, content in (
        ("table.csv.gz", whole[: len(whole) // 2]),
        ("table.csv.gz", whole[:15] + b"\xff" + whole[16:]),
        *((f"table.csv.{kind}", b"a,y\n1,2\n") for kind in ("gz", "bz2", "xz", "zip")),
    ):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} cannot be read: "):
            read_table(tmp_path / name)


def test_a_comma_at_the_end_of_rows_shifts_no_column(tmp_path):
    (tmp_path / "table.csv").write_text("rooms,size\n4,156.4,\n3,80.0,\n")
    assert read_table(tmp_path / "table.csv")["rooms"].tolist() == [4, 3]
    (tmp_path / "table.csv").write_text("rooms,size\n4,156.4,7\n3,80.0,8\n")
    with pytest.raises(UserError, match=r"rows have more values than there are names .* in quotes"):
        read_table(tmp_path / "table.csv")


def test_a_column_with_one_text_far_below_is_text(tmp_path):
    (tmp_path / "table.csv").write_text("code,size\n" + "7,1\n" * 600_000 + "x,2\n")
    assert set(read_table(tmp_path / "table.csv")["code"]) == {"7", "x"}


def test_words_for_missing_values_are_text_among_texts_only(tmp_path):
    (tmp_path / "table.csv").write_text(
        "grade,grade,size,sold,code\nNone,n/a,1.5,True,1\nMild,null,NA,NA,NA\n"
        "NA,b,null,False,\n,nan,,,x\n"
    )
    frame = read_table(tmp_path / "table.csv")
    assert frame.astype(object).fillna("-").to_numpy().T.tolist() == [
        ["None", "Mild", "NA", "-"],
        ["n/a", "null", "b", "-"],
        [1.5, "-", "-", "-"],
        [True, "-", False, "-"],
        ["1", "NA", "-", "x"],
    ]
    assert frame["size"].dtype == float


def test_integers_keep_their_digits_with_missing_values_and_beyond_64_bits(tmp_path):
    first = [10**25, 10**25 + 1, 10**400]
    second = [1780000000000000123, None, 1780000000000000124]
    third = [2**63, None, -5]  # no type of pandas can hold all of them
    rows = "".join(
        f"{a},{b or ''},1e20,x,{c or ''}\n" for a, b, c in zip(first, second, third, strict=True)
    )
    (tmp_path / "table.csv").write_text(f"a,b,c,d,e\n{rows}0,0,,x,0\n")
    frame = read_table(tmp_path / "table.csv")
    assert frame["c"].dtype == float, "a value written as a float is one"
    assert frame["e"].dropna().tolist() == [2**63, -5, 0]
    assert frame["a"].tolist() == [*first, 0]
    assert frame["b"].tolist() == [second[0], pd.NA, second[2], 0]
    assert len(frame[["b", "d"]].drop_duplicates()) == 4
    frame.to_csv(tmp_path / "again.csv", index=False)
    pd.testing.assert_frame_equal(read_table(tmp_path / "again.csv"), frame)


def test_integers_of_any_size_are_numbers_in_a_training(frame, tmp_path):
    n = range(200)
    long = frame.assign(
        a=[10**25 + i for i in n], b=[-(10**30) * i for i in n], c=["", *[2**60 + i for i in n[1:]]]
    )
    long.to_csv(tmp_path / "table.csv", index=False)
    frame = read_table(tmp_path / "table.csv")
    train, *_ = rows_by_split(frame, "b", 0)
    assert train.X[["a", "c"]].dtypes.tolist() == [float, float]
    assert train.y.min() > -2e32
    check_numbers(train.y)
    (tmp_path / "table.csv").write_text("x,y\n" + f"1,{10**400}\n2,3\n" * 20)
    with pytest.raises(UserError, match="'y' holds inf in row 0 "):
        rows_by_split(read_table(tmp_path / "table.csv"), "y", 0)


def test_classes_that_are_long_numbers_stay_different(frame, tmp_path):
    for classes in ([10**29, 10**29 + 1], [2**60, 2**60 + 1], [3 * 10**29, 10**29]):
        kinds = frame["kind"].map(dict(zip("ab", map(str, classes), strict=True)))
        for gaps in (-1, 3):
            table = frame.assign(kind=kinds.where(frame.index != gaps))
            table.to_csv(tmp_path / "table.csv", index=False)
            train, *_ = rows_by_split(read_table(tmp_path / "table.csv"), "kind", 0)
            check_classes(train.y, 2)


def test_each_row_is_in_one_split_as_the_seed_decides(frame):
    first, again, other = (with_splits(frame, random_seed=seed) for seed in (1, 1, 2))
    assert first["split"].value_counts().to_dict() == {"train": 136, "validation": 34, "test": 30}
    assert first["split"].equals(again["split"])
    assert not first["split"].equals(other["split"])
    assert with_splits(first, random_seed=5) is first


def test_classes_have_the_same_share_in_each_split(frame):
    split = with_splits(frame, random_seed=0, stratify="kind")
    shares = split.groupby("split")["kind"].apply(lambda kind: (kind == "b").mean())
    assert shares.to_numpy() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("size", [0, 1, 5, -0.1])
def test_a_size_that_is_no_share_is_refused(frame, size):
    with pytest.raises(ValueError, match=f"test_size is {size}: expected a share between 0 and 1"):
        with_splits(frame, random_seed=0, test_size=size)


def test_a_table_of_many_columns_is_split_without_a_warning(tmp_path):
    columns = [f"c{n}" for n in range(500)]
    pd.DataFrame(np.ones((20, 500)), columns=columns).to_csv(tmp_path / "wide.csv", index=False)
    table = with_splits(read_table(tmp_path / "wide.csv"), random_seed=0)
    assert list(table) == [*columns, "split"]
    rows_by_split(table, "c0", 0)


def test_rows_without_a_class_are_one_more_class(frame):
    for kinds in (frame["kind"], frame["kind"] == "b", frame["kind"].map({"a": 0, "b": 1})):
        gaps = frame.assign(kind=kinds.where(frame.index % 5 > 0))
        split = with_splits(gaps, random_seed=0, stratify="kind")
        shares = split.groupby("split")["kind"].apply(lambda kind: kind.isna().mean())
        assert shares.to_numpy() == pytest.approx(0.2, abs=0.02)
    one = frame.assign(kind=frame["kind"].where(frame.index > 0))
    message = r"200 rows are too few to split: .*'missing'.* each class of 'kind', .* `stratify` by"
    with pytest.raises(UserError, match=message):
        with_splits(one, random_seed=0, stratify="kind")


def test_too_few_rows_are_refused(frame):
    with pytest.raises(UserError, match="2 rows are too few to split"):
        with_splits(frame[:2], random_seed=0)
    with pytest.raises(UserError, match=r"200 rows are too few .*: \[0\.0, .* …\]\. Add") as caught:
        with_splits(frame, random_seed=0, stratify="price")
    assert len(str(caught.value)) < 400, "not each of 200 classes"


def test_the_target_is_the_named_column_or_the_last(frame):
    frame.loc[3, "price"] = np.nan
    train, validation, test = rows_by_split(frame, None, 0)
    assert train.y.name == "price"
    assert len(train.y) + len(validation.y) + len(test.y) == 199, "one row has no price"
    assert list(test.X) == ["size", "kind"]
    assert rows_by_split(with_splits(frame, random_seed=0), "kind", 0)[0].y.name == "kind"


def test_a_column_may_have_any_name(frame):
    frame = frame.rename(columns={"price": "self"})
    train, _, _ = rows_by_split(frame, "self", 0)
    assert train.y.name == "self"
    assert list(frame) == ["size", "kind", "self"]


def test_rows_of_a_patient_are_in_one_split_if_the_patients_are_drawn():
    """As in lab/processes/README.md."""
    frame = pd.DataFrame({"patient": np.arange(200) // 2, "y": range(200)})
    patients = with_splits(frame[["patient"]].drop_duplicates(), random_seed=0)
    found = frame.merge(patients, how="left")
    assert found["y"].tolist() == frame["y"].tolist()
    assert (found.groupby("patient")["split"].nunique() == 1).all()
    pd.testing.assert_frame_equal(with_splits(found, random_seed=1), found)


def test_columns_without_a_name_are_reported(frame, tmp_path, caplog):
    """Pandas writes the rows' numbers into one: no row repeats another then."""
    frame.to_csv(tmp_path / "table.csv")
    assert "Unnamed: 0" in read_table(tmp_path / "table.csv")
    [warning] = caplog.messages
    assert "table.csv has columns without a name: 'Unnamed: 0' here" in warning


@pytest.mark.parametrize(
    "texts",
    [
        ["3,5", "4", "-1,25"],
        ["1,000.50", "999", ""],
        ["1.000,50", "2"],
        ["12 %", "7%"],
        ["€5", " $ 6"],
        ["1'000", "20"],
        ["1\u202f000", "2"],
    ],
)
def test_numbers_that_are_read_as_text_are_reported(tmp_path, caplog, texts):
    table = pd.DataFrame({"price": texts, "y": 1})
    table.to_csv(tmp_path / "table.csv", index=False)
    read_table(tmp_path / "table.csv")
    [warning] = caplog.messages
    assert "table.csv has numbers that are read as text" in warning
    assert f"{texts[0]!r} in the column 'price'" in warning


@pytest.mark.parametrize("text", ["1.2.3", "2024-05-01", "12:30", "3,5 kg", "12", "1e5", "a, b"])
def test_other_text_is_not_reported(tmp_path, caplog, text):
    pd.DataFrame({"price": [text, text], "y": 1}).to_csv(tmp_path / "table.csv", index=False)
    read_table(tmp_path / "table.csv")
    assert caplog.messages == []


def test_duplicate_column_names_are_reported(tmp_path, caplog):
    file = tmp_path / "joined.csv"
    file.write_text("\ufeffprice,kind,,price,\n1,a,,1,\n", "utf-8")
    assert list(read_table(file))[:4] == ["price", "kind", "Unnamed: 2", "price.1"]
    [warning] = caplog.messages
    assert "joined.csv has several columns 'price': the second is called 'price.1' here" in warning


def test_invalid_targets_are_reported(frame):
    with pytest.raises(UserError, match="no column 'age': it has 'size', 'kind', 'price'"):
        rows_by_split(frame, "age", 0)
    wide = pd.DataFrame([[0] * 2000], columns=[f" {n}" for n in range(2000)])
    with pytest.raises(UserError, match=r"no column '0': it has ' 0', ' 1', .* and 1,970 more\.$"):
        without_columns(wide, ["0"])
    table = frame.assign(split="train")
    for those, name in ((table, "split"), (frame, "split"), (table[["split"]], None)):
        with pytest.raises(UserError, match=r"The column 'split' says .* and cannot be predicted"):
            rows_by_split(those, name, 0)
    with pytest.raises(UserError, match="Column 'price' has no value: name another target"):
        rows_by_split(frame.assign(price=np.nan), "price", 0)
    with pytest.raises(UserError, match="No row is for validation"):
        rows_by_split(frame.assign(split="train"), "price", 0)
    splits = with_splits(frame, random_seed=0)["split"]
    for value, shown in (("val", "'val'"), (np.nan, "empty"), (np.int64(1), "1")):
        values = splits.astype(object).where(splits.index > 0, value)
        with pytest.raises(UserError, match=f"'split' is {shown} somewhere: it says train, "):
            rows_by_split(frame.assign(split=values), "price", 0)
    with pytest.raises(UserError, match=r"'kind' holds .*: a regression predicts numbers"):
        check_numbers(frame["kind"])
    with pytest.raises(UserError, match=r"'kind' holds bool \(False\): a regression"):
        check_numbers(frame["kind"] == "b")
    with pytest.raises(UserError, match=r"'price' has 200 different values .*: two classes"):
        check_classes(frame["price"], 2)
    check_numbers(frame["price"])
    check_classes(frame["kind"], 2)


def test_a_column_of_row_names_is_reported_and_can_be_dropped(frame, caplog):
    named = frame.assign(house_id=[f"H{n}" for n in range(len(frame))])
    rows_by_split(named, "price", random_seed=0)
    assert "house_id has another text in nearly every row" in caplog.text
    caplog.clear()
    rows_by_split(without_columns(named, ["house_id"]), "price", random_seed=0)
    assert caplog.text == "", "numbers and repeated texts can be learned from"
    with pytest.raises(UserError, match="no column 'houseid': it has 'size', 'kind', 'price'"):
        without_columns(frame, ["houseid"])


def test_a_column_without_training_values_is_named(frame, caplog):
    frame = with_splits(frame, random_seed=0)
    in_training = frame["split"] == "train"
    late = frame["size"].mask(in_training)
    train, *_ = rows_by_split(frame.assign(late=late, none=np.nan), "price", random_seed=0)
    for name in ("late", "none"):
        assert f"{name} has no value in training: nothing can be learned from it" in caplog.text
    assert numbers_with_values(train.X) == ["size"]
    with pytest.raises(UserError, match="No column beside 'price' has a value in training"):
        rows_by_split(frame[["price", "split"]].assign(late=late), "price", random_seed=0)
    caplog.clear()
    early = frame["size"].where(in_training)
    rows_by_split(frame.assign(early=early), "price", random_seed=0)
    assert caplog.text == "", "training has values of it"


def test_booleans_stay_so_if_some_are_missing(frame):
    sold = (frame["kind"] == "b").astype(object).where(frame.index > 20)
    assert rows_by_split(frame.assign(sold=sold), "sold", 0)[0].y.dtype == bool


def test_integer_classes_stay_so_if_some_are_missing(frame):
    for factor, dtype in ((1, int), (0.5, float), (2.0**60, float)):
        codes = (frame["kind"] == "b") * factor
        sold = codes.where(frame.index > 20)
        assert rows_by_split(frame.assign(sold=sold), "sold", 0)[0].y.dtype == dtype


def test_classes_that_cannot_be_learned_are_refused_first(frame):
    halves = frame["kind"].map({"a": 1.5, "b": 2.0})
    with pytest.raises(UserError, match=r"'kind' holds 1\.5: classes are text or whole numbers"):
        check_classes(halves)
    check_classes(halves * 2)
    rare = frame["kind"].where(frame.index > 0, "rare")
    with pytest.raises(UserError, match="'kind' has 'rare' in 1 of the training rows: 2 are exp"):
        check_classes(rare, least=2)
    check_classes(rare)
    with pytest.raises(UserError, match="'kind' has 54 in 1 of the training rows"):
        check_classes(frame["kind"].map({"a": 7, "b": 8}).where(frame.index > 0, 54), least=2)


def test_a_class_missing_in_a_split_is_named(frame, caplog):
    train, validation, test = rows_by_split(frame, "kind", 0)
    check_same_classes(train, validation=validation, test=test)
    assert not caplog.messages
    check_same_classes(train, validation=Rows(validation.X, validation.y.map(lambda _: "a")))
    assert [text.partition(":")[0] for text in caplog.messages] == [
        "validation has no row of kind 'b'"
    ]
    numbers = [Rows(r.X, r.y.map({"a": 7, "b": 8})) for r in (train, test)]
    numbers[1].y.iloc[0] = 54
    with pytest.raises(UserError, match="'kind' has 54 in test, and in no row of training"):
        check_same_classes(numbers[0], test=numbers[1])
    new = Rows(test.X, test.y.where(test.y == "a", "new"))
    with pytest.raises(UserError, match=r"'kind' has 'new' in test, and in no row .*stratify"):
        check_same_classes(train, validation=validation, test=new)


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize("value", [-np.inf, 1e39, -1e200])
def test_a_number_beyond_float32_is_shown_with_column_and_row(frame, split, value):
    frame = with_splits(frame, random_seed=0)
    row = frame.index[frame["split"] == split][3]
    beyond = frame.assign(price=frame["price"].where(frame.index != row, value))
    message = re.escape(
        f"'price' holds {value:g} in row {row} (the first is 0): numbers up to 3.4e38"
    )
    with pytest.raises(UserError, match=message):
        rows_by_split(beyond, "price", 0)
    with pytest.raises(UserError, match=message):
        check_finite(beyond)
    check_finite(frame.assign(price=frame["price"] * 1e35))


def test_constant_targets_are_refused_before_training(frame):
    for rows in (frame.assign(price=5.0), frame[:1]):
        with pytest.raises(UserError, match="'price' has 1 different values in training: two num"):
            check_numbers(rows["price"])
    check_numbers(frame["price"][:2])
