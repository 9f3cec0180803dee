"""Tables of any source are read in chunks, and duplicates are found across chunks."""

import gzip
import threading

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from lib import tables
from lib.chunks import (
    MISSING,
    MISSING_NUMBERS,
    Buckets,
    Duplicates,
    ahead,
    also_written,
    read_chunks,
)
from lib.errors import UserError

pytestmark = pytest.mark.unittest

TYPES = {"size": "float64", "kind": "string"}
FRAME = pd.DataFrame({"size": np.arange(10.0), "kind": list("abcdefghij")})


def put(folder, name, frame):
    file = folder / name
    list(also_written([frame], file, "parquet" if name.endswith("parquet") else "csv"))
    return file


def sources(folder):
    (folder / "parts/more").mkdir(parents=True)
    put(folder / "parts", "1.csv", FRAME[:4])
    put(folder / "parts", "2.parquet", FRAME[4:7])
    put(folder / "parts/more", "3.csv", FRAME[7:])
    (folder / "parts" / "1.csv.dvc").write_text("outs: []")
    return {
        "a frame": FRAME,
        "frames of a cursor": iter([FRAME[:4], FRAME[4:4], FRAME[4:]]),
        "CSV": put(folder, "all.csv", FRAME),
        "Parquet": str(put(folder, "all.parquet", FRAME)),
        "a folder": folder / "parts",
    }


@pytest.mark.parametrize("kind", ["a frame", "frames of a cursor", "CSV", "Parquet", "a folder"])
def test_every_source_gives_the_same_rows_counted_from_0(tmp_path, kind):
    chunks = list(read_chunks(sources(tmp_path)[kind], TYPES, rows=3))
    assert max(map(len, chunks)) <= 3
    pd.testing.assert_frame_equal(pd.concat(chunks), FRAME, check_dtype=False)
    assert chunks[0]["size"].dtype == np.float64, "0.0, 1.0 … are not whole numbers"


@pytest.mark.parametrize("name", ["none.csv", "none.parquet"])
def test_a_table_without_rows_has_its_columns(tmp_path, name):
    [chunk] = read_chunks(put(tmp_path, name, FRAME[:0]), TYPES)
    assert list(chunk) == ["size", "kind"]
    assert len(chunk) == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", None, "a.csv is missing"),
        ("a.xlsx", b"", "a.xlsx is of no kind that can be read in chunks: expected .csv or"),
        ("a.parquet", b"size\n1\n", "a.parquet cannot be read: "),
        ("a.csv", b"", "a.csv cannot be read: "),
        (
            "a.csv",
            b"size,kind\n1,a\nlarge,b\n",
            r"a\.csv cannot be read: column 'size', row 1: .*'large'",
        ),
        ("a.csv", b"size,kind\n1,a\n2,b,c\n", r"a\.csv cannot be read: row 1: Expected 2 columns"),
        ("a.csv", b"a;b;y\n1;2;3\n", r"a\.csv cannot be read: its one column is 'a;b;y': save it"),
        ("a.csv", b"a;b;y\n1,5;2;3\n", r"a\.csv cannot be read: its one column is 'a;b;y': save"),
        (
            "a.csv",
            b"a\tb\n",
            r"a\.csv cannot be read: its one column is 'a\\tb': save it with comma",
        ),
        ("a", "folder", "a has no file to read: expected .csv or"),
    ],
)
def test_unreadable_sources_are_named(tmp_path, name, content, message):
    if content == "folder":
        (tmp_path / name).mkdir()
    elif content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        list(read_chunks(tmp_path / name, TYPES))


@pytest.mark.parametrize("name", ["2.csv", "2.csv.gz"])
def test_a_bad_value_is_reported_with_its_column_and_row_over_all_files(tmp_path, name):
    put(tmp_path, "1.csv", FRAME)
    frame = pd.DataFrame({"size": ["1"] * 40, "mean, area": 2, "kind": "two\nlines"})
    frame.loc[33, "size"] = "12,5"
    frame.to_csv(tmp_path / name, index=False, columns=["kind", "mean, area", "size"])
    chunks = read_chunks(tmp_path, TYPES, rows=4)
    with pytest.raises(
        UserError, match=r"2\.csv.* cannot be read: column 'size', row 43: .*'12,5'"
    ):
        list(chunks)


@pytest.mark.parametrize("kind", ["integer", float])
def test_a_type_that_arrow_lacks_is_named_with_its_column(tmp_path, kind):
    file = put(tmp_path, "a.csv", FRAME)
    with pytest.raises(
        UserError, match=f"Column 'size' has the type {kind!r} in `types`: expected"
    ):
        list(read_chunks(file, {"kind": "string", "size": kind}))


def test_binary_data_are_reported(tmp_path):
    packed = gzip.compress(b"size,ort\n1,a\n", mtime=0)  # bytes 4 to 7 are the time
    (tmp_path / "a.csv").write_bytes(packed[:4] + b',\r\n"' + packed[8:])
    with pytest.raises(UserError, match=r"a\.csv cannot be read: is each quote closed .* UTF-8\?"):
        list(read_chunks(tmp_path / "a.csv", TYPES, rows=100))


@pytest.mark.parametrize(
    ("content", "where"),
    [
        ("ort,size\nKöln,1\n,2\n".encode("latin-1"), "column 'ort'"),
        (b"ort,size\n" + b"Bonn,1\n" * 5000 + b"K\xf6ln,2\n", "column 'ort', row 5000"),
        ("größe,ort\n1,a\n".encode("latin-1"), "the line of names"),
        ("größe,kind\n1,ä\n".encode("latin-1"), "the line of names"),
        ("größe,ort\n1\n".encode("latin-1"), "the line of names"),
        ("size,ort\n1,a\n".encode("utf-16"), "the line of names"),
        (gzip.compress(b"size,ort\n1,a\n", mtime=0), "the line of names"),
    ],
    ids=["text", "text far below", "names", "names and text", "rows", "UTF-16", "gzip"],
)
def test_non_utf8_text_is_reported_and_not_read(tmp_path, content, where):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(
        UserError, match=rf"a\.csv cannot be read: {where} is not UTF-8 text\. Save it as CSV in"
    ):
        list(read_chunks(tmp_path / "a.csv", TYPES, rows=100))


def test_binary_columns_of_parquet_are_kept(tmp_path):
    pq.write_table(pa.table({"kind": [b"K\xf6ln", None]}), tmp_path / "a.parquet")
    [found] = read_chunks(tmp_path / "a.parquet")
    assert found["kind"].tolist() == [b"K\xf6ln", None]


@pytest.mark.parametrize("first", ["a.csv", "a.parquet"])
def test_a_type_that_is_guessed_differently_by_file_is_refused(tmp_path, first):
    put(tmp_path, first, pd.DataFrame({"id": [7, 8], "gap": [1, 2]}))
    (tmp_path / "b.csv").write_text("id,gap\n007,\nA1,\n")
    found = r"Column 'id' is int64 in .*a\.\w+ and string in .*b\.csv.*: give its type in `types`"
    with pytest.raises(UserError, match=found):
        list(read_chunks(tmp_path, {"size": "float64"}))
    frames = list(read_chunks(tmp_path, {"id": "string"}))
    assert frames[-1]["id"].tolist() == ["007", "A1"]


def test_a_quoted_value_may_hold_newlines_at_any_block_border(tmp_path):
    frame = pd.DataFrame({"size": np.arange(100.0), "kind": ["a\nb,\n\nc" * 9] * 100})
    read = pd.concat(read_chunks(put(tmp_path, "a.csv", frame), TYPES, rows=3))
    pd.testing.assert_frame_equal(read, frame, check_dtype=False)


def test_an_unclosed_quote_is_reported(tmp_path):
    (tmp_path / "a.csv").write_text('size,kind\n1,"a\n' + "1,b\n" * 1000)
    with pytest.raises(UserError, match=r"a\.csv cannot be read: .*: is a quote closed that is"):
        list(read_chunks(tmp_path / "a.csv", TYPES, rows=3))


@pytest.mark.parametrize("name", ["2.csv", "2.csv.gz"])
@pytest.mark.parametrize("end", ["", "\n", "\n\n"])
def test_rows_after_an_unclosed_quote_are_not_lost(tmp_path, name, end):
    put(tmp_path, "1.csv", FRAME)
    write = gzip.open if name.endswith(".gz") else open
    with write(tmp_path / name, "wt") as file:
        file.write(f'size,kind\n1,b\n2,"c\n3,d\n4,e{end}')
    found = rf"{name} cannot be read: column 'kind', row {len(FRAME) + 1}: a quote is opened"
    with pytest.raises(UserError, match=found):
        list(read_chunks(tmp_path, TYPES))
    with write(tmp_path / name, "wt") as file:
        file.write(f'size,kind\n1,b\n2,"c\n3,d\n"{end}')
    assert pd.concat(read_chunks(tmp_path, TYPES))["kind"].iloc[-1] == "c\n3,d\n"


@pytest.mark.parametrize("types", [{}, TYPES | {"id": "large_string"}], ids=["guessed", "given"])
def test_missing_values_in_csv_are_those_of_tables(tmp_path, types):
    assert MISSING == tables.MISSING
    missing = ["", '""', *sorted(MISSING_NUMBERS), '"NA"', '"nan"']
    lines = [
        f"{text},a{text},{text}" if text[:1] != '"' else f"{text},b,{text}" for text in missing
    ]
    (tmp_path / "a.csv").write_text("\n".join(["id,kind,size", "A,b,1", *lines, "B,c,2.5"]))
    [found] = read_chunks(tmp_path / "a.csv", types)
    expected = tables.read_table(tmp_path / "a.csv")
    assert expected["id"].count() > 6, "NA and NULL are text in a text column"
    pd.testing.assert_frame_equal(found, expected, check_dtype=False, check_index_type=False)


def test_floats_from_csv_are_exact_to_the_bit(tmp_path):
    frame = pd.DataFrame({"size": np.random.default_rng(0).standard_normal(1000) * 1e-5})
    [read] = read_chunks(put(tmp_path, "a.csv", frame), {"size": "float64"})
    assert np.array_equal(read["size"], frame["size"])


def test_buckets_keep_the_order_of_rows(tmp_path):
    rows = np.arange(20.0).reshape(10, 2)
    buckets = Buckets(tmp_path / "buckets", np.float64, width=2)
    for start in (0, 4):
        part = slice(start, start + (4 if start == 0 else 6))
        buckets.append(np.arange(10)[part] % 2 * 2, rows[part])
    assert np.array_equal(np.concatenate(list(buckets.read(0, 2))), rows[::2])
    assert np.array_equal(next(buckets.read(2)), rows[1::2])
    assert list(buckets.read(1)) == []


def test_taken_buckets_come_by_number_and_leave_the_disk(tmp_path):
    buckets = Buckets(tmp_path / "buckets", np.float64)
    numbers = np.arange(30) % 11
    buckets.append(numbers, np.arange(30.0))
    taken = list(buckets.take(2))
    assert np.array_equal(np.concatenate(taken), np.argsort(numbers, kind="stable"))
    assert max(map(len, taken)) == 2
    assert not list(buckets.folder.iterdir())


@pytest.mark.parametrize("size", [7, 100, 1000])
def test_repeated_rows_are_counted_as_by_pandas(tmp_path, size):
    rng = np.random.default_rng(0)
    frame = pd.DataFrame({"a": rng.integers(0, 30, 1000), "b": rng.integers(0, 9, 1000) / 2})
    duplicates = Duplicates(tmp_path)
    for chunk in read_chunks(frame, rows=size):
        duplicates.add(chunk)
    again = np.flatnonzero(frame.duplicated())
    assert duplicates.count() == (len(again), again[0])


def test_without_repeated_rows_there_is_no_first(tmp_path):
    duplicates = Duplicates(tmp_path)
    duplicates.add(FRAME)
    assert duplicates.count() == (0, None)


@pytest.mark.parametrize("value", [[1, 2], {"a": 1}, np.ones(2)], ids=["list", "struct", "array"])
def test_incomparable_values_are_reported_with_their_column(tmp_path, value):
    frame = pd.DataFrame({"size": [1, 2], "parts": [value, value]})
    with pytest.raises(UserError, match="Column 'parts' has values that cannot be compared"):
        Duplicates(tmp_path).add(frame)


def test_unwritable_values_are_reported_with_their_column(tmp_path):
    frame = pd.DataFrame({"size": [1, 2], "parts": [[("a", 1)], "b"]})
    with pytest.raises(UserError, match=r"a\.parquet cannot be written: .* column parts"):
        list(also_written([frame], tmp_path / "a.parquet", "parquet"))


@pytest.mark.parametrize("kind", ["CSV", "cursor"])
def test_duplicate_column_names_are_reported(tmp_path, kind):
    joined = FRAME.assign(other=1).set_axis(["size", "kind", "size"], axis=1)
    joined.to_csv(tmp_path / "joined.csv", index=False)
    source = tmp_path / "joined.csv" if kind == "CSV" else iter([FRAME[:0], joined])
    with pytest.raises(UserError, match=r"Column 'size' occurs more than once: .* query by AS"):
        list(also_written(read_chunks(source), tmp_path / "all.csv", "csv"))


def test_a_column_only_in_folder_names_is_not_lost(tmp_path):
    FRAME.assign(year=[2024, 2025] * 5).to_parquet(tmp_path / "sales", partition_cols=["year"])
    with pytest.raises(UserError, match=r"^year=2024/\S+ has the column 'year' in the name of its"):
        list(read_chunks(tmp_path / "sales"))
    batches = pyarrow.dataset.dataset(tmp_path / "sales", partitioning="hive").to_batches()
    found = pd.concat(read_chunks(batch.to_pandas() for batch in batches))
    assert sorted(zip(found["size"], found["year"], strict=True))[1] == (1, 2025)
    (tmp_path / "whole/year=2024").mkdir(parents=True)
    put(tmp_path, "whole/year=2024/all.csv", FRAME.assign(year=2024))
    assert sum(map(len, read_chunks(tmp_path / "whole"))) == len(FRAME)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_columns_in_another_order_are_written_under_their_names(tmp_path, form):
    frames = [FRAME[:4], FRAME[4:][["kind", "size"]]]
    list(also_written(frames, tmp_path / f"all.{form}", form))
    found = pd.concat(read_chunks(tmp_path / f"all.{form}", TYPES))
    pd.testing.assert_frame_equal(found, FRAME, check_dtype=False, check_index_type=False)
    with pytest.raises(UserError, match=r"Columns differ .*: kind"):
        list(also_written([FRAME, FRAME[["size"]]], tmp_path / f"other.{form}", form))


def test_a_missing_value_in_later_rows_is_kept(tmp_path):
    whole = [pd.DataFrame({"n": [1, 2]}), pd.DataFrame({"n": [3.0, None]})]
    list(also_written(whole, tmp_path / "n.parquet", "parquet"))
    assert pd.read_parquet(tmp_path / "n.parquet")["n"].isna().tolist() == [False] * 3 + [True]
    with pytest.raises(UserError, match="later rows have another type"):
        list(
            also_written(
                [whole[0], FRAME[["kind"]].set_axis(["n"], axis=1)], tmp_path / "x", "parquet"
            )
        )


WITH_GAPS = pd.DataFrame(
    {
        "age": pd.array([1, None, 3, 4, 5, 6, 1, None], dtype="Int64"),
        "old": pd.array([None, True, False, True, True, False, None, True], dtype="boolean"),
        "id": 2**60 + np.arange(8) % 6,
        "size": [0.5, np.nan, 2, 3, 4, 5, 0.5, np.nan],
    }
)


@pytest.mark.parametrize("form", ["csv", "parquet"])
@pytest.mark.parametrize("rows", [1, 3, 8])
def test_a_gap_in_one_chunk_changes_no_other_values(tmp_path, form, rows):
    file = put(tmp_path, f"a.{form}", WITH_GAPS)
    duplicates = Duplicates(tmp_path)
    types = {"age": "int64", "old": "bool", "size": "float64"}
    chunks = list(also_written(read_chunks(file, types, rows), tmp_path / "again.csv", "csv"))
    for chunk in chunks:
        duplicates.add(chunk)
    assert duplicates.count() == (2, 6)
    assert (tmp_path / "again.csv").read_text() == WITH_GAPS.to_csv(index=False)
    found = pd.concat(chunks)
    pd.testing.assert_frame_equal(found, WITH_GAPS, check_index_type=False)
    list(also_written(chunks, tmp_path / "again.parquet", "parquet"))
    pd.testing.assert_frame_equal(pd.concat(read_chunks(tmp_path / "again.parquet")), found)


def test_a_column_of_parquet_has_one_type_in_all_chunks(tmp_path):
    frame = pd.DataFrame({"age": range(9), "gap": range(9), "no": True, "maybe": True})
    table = pa.Table.from_pandas(frame.set_index(frame["age"] * 2))  # the index is not a column
    for n, value in ((1, pa.scalar(None, pa.int64())), (3, pa.scalar(None, pa.bool_()))):
        name = table.schema[n].name
        table = table.set_column(n, name, pc.if_else(pc.equal(table["age"], 7), value, table[name]))
    pq.write_table(table, tmp_path / "a.parquet")
    for chunk in read_chunks(tmp_path / "a.parquet", rows=2):
        assert list(map(str, chunk.dtypes)) == ["int64", "Int64", "bool", "boolean"]


@pytest.mark.parametrize(
    ("first", "kind"),
    [
        (pa.array([-1, 2], pa.int32()), "int64"),
        (pa.array([-1.0, 2.5]), "float64"),
        (pa.array([-1.0, 2.5], pa.float32()), "float64"),
        (pa.array([None, None], pa.int64()), "Int64"),
        (pa.nulls(2), "Int64"),
    ],
    ids=["int32", "float64", "float32", "all missing", "no type"],
)
def test_a_column_has_one_type_over_all_parquet_files_and_rows_repeat(tmp_path, first, kind):
    folder = tmp_path / "parts"
    folder.mkdir()
    pd.DataFrame({"a": [], "b": []}).to_parquet(folder / "0.parquet")  # typed as floats
    pq.write_table(pa.table({"a": first, "b": ["x", "y"]}), folder / "1.parquet")
    pq.write_table(pa.table({"b": ["x", "x"], "a": [-1, 7]}), folder / "2.parquet")
    index = pd.Index([5], name="row")
    pd.DataFrame({"a": [3], "b": ["z"]}, index).to_parquet(folder / "3.parquet")
    chunks = list(read_chunks(folder))
    assert str(chunks[1]["a"].dtype) == kind
    found = Duplicates(tmp_path)
    for chunk in also_written(iter(chunks), tmp_path / "all.parquet", "parquet"):
        found.add(chunk[["a", "b"]])
        assert set(chunk) == {"a", "b"}, "an index is not a column"
    assert found.count() == ((0, None) if first.null_count else (1, 2))
    assert pd.concat(read_chunks(tmp_path / "all.parquet"))["a"].tolist()[2:] == [-1, 7, 3]


def test_columns_without_a_common_type_are_kept(tmp_path):
    texts = pa.array(["x", "y"])
    for n, each in enumerate((texts, texts.dictionary_encode(), texts.cast(pa.binary()))):
        pq.write_table(pa.table({"a": each}), tmp_path / f"{n}.parquet")
    found = [chunk["a"].tolist() for chunk in read_chunks(tmp_path)]
    assert found == [["x", "y"], ["x", "y"], [b"x", b"y"]]


def test_categories_are_kept_next_to_integers_with_missing_values(tmp_path):
    frame = WITH_GAPS.assign(kind=pd.Categorical(list("abababab")))
    file = put(tmp_path, "a.parquet", frame)
    for rows in (3, 8):
        found = pd.concat([chunk.astype({"kind": str}) for chunk in read_chunks(file, rows=rows)])
        assert found["kind"].tolist() == list("abababab")


def test_files_without_data_are_skipped(tmp_path):
    put(tmp_path, "1.csv", FRAME)
    (tmp_path / "._1.csv").write_bytes(b"\0")
    (tmp_path / "sub.csv").mkdir()
    assert sum(map(len, read_chunks(tmp_path, TYPES))) == len(FRAME)


def test_the_next_part_is_made_while_the_current_one_is_used():
    made = []
    second = threading.Event()

    def parts():
        for number in range(3):
            made.append(number)
            if number == 1:
                second.set()
            yield number

    following = ahead(parts())
    assert next(following) == 0
    assert second.wait(10), "it has not been requested yet"
    assert [*following] == [1, 2]
    assert made == [0, 1, 2]


def test_an_error_is_raised_in_place_of_its_part():
    def parts():
        yield "whole"
        raise UserError("broken")

    following = ahead(parts())
    assert next(following) == "whole"
    with pytest.raises(UserError, match="broken"):
        next(following)


@pytest.mark.parametrize("name", ["Patient", "patient ", "pa_tient"])
def test_a_misspelled_column_with_a_type_is_reported(tmp_path, name):
    (tmp_path / "a.csv").write_text("patient,x_1\n007,1\n")
    with pytest.raises(
        UserError, match=f"has no column '{name}', as in `types`: is 'patient' meant"
    ):
        list(read_chunks(tmp_path / "a.csv", {name: "string"}))
    (chunk,) = read_chunks(
        tmp_path / "a.csv", {"patient": "string", "x_2": "string", "Y": "string"}
    )
    assert chunk["patient"].tolist() == ["007"]


def test_float_has_64_bits(tmp_path):
    (tmp_path / "a.csv").write_text("x\n16777217\n")
    (chunk,) = read_chunks(tmp_path / "a.csv", {"x": "float"})
    assert chunk["x"].tolist() == [16777217.0]


@pytest.mark.parametrize("rows", [1, 10, 10_000_000])
def test_chunks_have_any_number_of_rows(tmp_path, rows):
    frame = pd.DataFrame(np.arange(40.0).reshape(20, 2), columns=["a", "b"])
    frame.to_csv(tmp_path / "a.csv", index=False)
    chunks = list(read_chunks(tmp_path / "a.csv", rows=rows))
    assert max(map(len, chunks)) == min(rows, 20)
    pd.testing.assert_frame_equal(pd.concat(chunks), frame)


def test_chunks_without_rows_are_refused(tmp_path):
    with pytest.raises(ValueError, match="rows is 0: expected at least 1"):
        list(read_chunks(tmp_path / "a.csv", rows=0))
