"""Reads and writes tables larger than memory in chunks; keeps records in numbered files on disk.

Called by processes that prepare data. Memory holds a chunk and some copies of it, whatever the
number of rows; `Buckets` and `Duplicates` say what they need on disk.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq
from numpy.typing import DTypeLike, NDArray

from lib.errors import UserError

CHUNK_ROWS = 2**16
SUFFIXES = (".csv", ".csv.gz", ".parquet")

# Missing values in CSV, as in `lib/tables.py`: everywhere, and in columns without text.
MISSING = (
    *("", "nan", "NaN", "-nan", "-NaN", "1.#IND", "-1.#IND", "1.#QNAN", "-1.#QNAN"),
    *("<NA>", "#N/A", "#N/A N/A", "#NA"),
)
MISSING_NUMBERS = (*MISSING, "None", "NA", "N/A", "n/a", "NULL", "null")

# Types for whole numbers, or true and false, beside missing values.
NULLABLE = {
    pa.bool_(): pd.BooleanDtype(),
    pa.int8(): pd.Int8Dtype(),
    pa.uint8(): pd.UInt8Dtype(),
    pa.int16(): pd.Int16Dtype(),
    pa.uint16(): pd.UInt16Dtype(),
    pa.int32(): pd.Int32Dtype(),
    pa.uint32(): pd.UInt32Dtype(),
    pa.int64(): pd.Int64Dtype(),
    pa.uint64(): pd.UInt64Dtype(),
}

NO_UTF8 = (
    "is not UTF-8 text. Save it as CSV in UTF-8, or convert it, from Latin-1 by "
    "`iconv -f latin1 -t utf-8`."
)

# The causes of Arrow's messages.
CAUSES = {
    "cannot infer number of columns": (
        "it is empty, a quote in its line of names is never closed, or that line is longer than "
        "can be read at once: more `rows` at a time."
    ),
    "straddles two block boundaries": (
        "a row is longer than can be read at once: is a quote closed that is opened? If its rows "
        "are so long, more `rows` at a time."
    ),
}

Source: TypeAlias = Path | str | pd.DataFrame | Iterable[pd.DataFrame]
Part = TypeVar("Part")


# ---- reading


def read_chunks(
    source: Source, types: Mapping[str, str] | None = None, rows: int = CHUNK_ROWS
) -> Iterator[pd.DataFrame]:
    """The rows of a source in frames of at most `rows`; their index counts all rows from 0.

    Args:
        source: a CSV (UTF-8, commas between values) or Parquet file, a folder of them (with its
            subfolders, sorted by path), a frame, or an iterable of frames, such as
            `pd.read_sql(query, connection, chunksize=65536)`.
        types: of columns in CSV, by Arrow's names ("float64", "int64", "string"; "float" has 64
            bits, too); others are inferred from the first rows of each file. Parquet has its own
            types; if those of a folder's files differ, as int64 and float64, the common type is
            used.
        rows: of a frame, at most.

    In CSV, empty cells and `nan` are missing values, quoted or not. `None`, `NA`, `N/A` and `null`
    are missing among numbers and text among text, as for `read_table` of `lib/tables.py`.

    Whole numbers, and true and false, have pandas's nullable types (`Int64`, `boolean`) if values
    are missing: in Parquet in all chunks of a file with missing values in its statistics, else in
    the chunks that have some. Other chunks have `int64` and `bool`, which are written and hashed
    the same. Frames keep their types: a query whose whole numbers may be missing needs
    `dtype_backend="numpy_nullable"`, or they are floats in some of the frames.

    Raises:
        ValueError: `rows` is below 1.
        UserError: a file is missing, of an unknown kind, cannot be read, or has a column only in
            the name of its folder; an inferred type differs from another file's; two columns have
            the same name; `types` has a column that differs from the file's in case or signs, or
            a type that Arrow does not know.
    """
    if rows < 1:
        raise ValueError(f"rows is {rows}: expected at least 1")
    start = 0
    for frame in _frames(source, _arrow_types(types or {}), rows):
        if (twice := frame.columns[frame.columns.duplicated()]).size:
            raise UserError(
                f"Column {twice[0]!r} occurs more than once: give each a name of its own, in a "
                "query by AS."
            )
        for first in range(0, max(len(frame), 1), rows):
            chunk = frame.iloc[first : first + rows]
            yield chunk.set_axis(pd.RangeIndex(start, start + len(chunk)))
            start += len(chunk)


def _arrow_types(types: Mapping[str, str]) -> dict[str, pa.DataType]:
    found = {}
    for name, kind in types.items():
        try:
            found[name] = pa.type_for_alias("float64" if kind == "float" else kind)
        except (ValueError, AttributeError):  # the latter if it is not text
            raise UserError(
                f"Column {name!r} has the type {kind!r} in `types`: expected one of Arrow's names, "
                'as "float64", "int64" or "string".'
            ) from None
    return found


def _frames(source: Source, types: Mapping[str, pa.DataType], rows: int) -> Iterator[pd.DataFrame]:
    if isinstance(source, pd.DataFrame):
        yield source
    elif isinstance(source, str | Path):
        seen: dict[str, tuple[pa.DataType, Path]] = {}
        start = 0
        files = _files(Path(source))
        common = _common_types(file for file in files if file.suffix == ".parquet")
        for file in files:
            n = 0
            try:
                for frame in ahead(_read(file, types, common, rows, seen)):
                    _refuse_lost_columns(frame, file.relative_to(source))
                    yield frame
                    n += len(frame)
            except (pa.ArrowException, OSError) as error:
                raise UserError(f"{file} cannot be read: {_reason(error, file, start)}") from None
            start += n
    else:
        yield from source


def _refuse_lost_columns(frame: pd.DataFrame, file: Path) -> None:
    """UserError for folders called `year=2025` if the files in them have no such column."""
    for folder in file.parts[:-1]:
        name, equals, _ = folder.partition("=")
        if equals and name not in frame:
            raise UserError(
                f"{file} has the column {name!r} in the name of its folder alone, which is not "
                "read. Hand over the rows with it: read_chunks(batch.to_pandas() for batch in "
                'pyarrow.dataset.dataset(folder, partitioning="hive").to_batches()).'
            )


def _reason(error: Exception, file: Path, start: int) -> str:
    """Arrow's message in a line, with the column's name, and the row counted over all files from 0.

    Arrow counts columns from 0 and rows from 1, the first of which has the names.
    """
    message = " ".join(str(error).split())
    if cause := next((told for words, told in CAUSES.items() if words in message), ""):
        return cause
    if found := re.match(r"(?:In CSV column #(\d+)|CSV parse error): Row #(\d+): ", message):
        column, row = found.groups()
        try:
            names = pd.read_csv(file, nrows=0, index_col=False, encoding_errors="replace").columns
        except pd.errors.ParserError:
            return "is each quote closed that is opened, and is it text in UTF-8?"
        if any("\ufffd" in name for name in names):
            return f"the line of names {NO_UTF8}"
        if other := _other_separator(names):
            return other
        of_column = "" if column is None else f"column {names[int(column)]!r}, "
        place = f"{of_column}row {start + int(row) - 2}"
        why = f" {NO_UTF8}" if "invalid UTF8" in message else f": {message[found.end() :]}"
        return place + why
    return message


def ahead(parts: Iterator[Part]) -> Iterator[Part]:
    """The same parts, none of which may be None; a thread computes the next one ahead."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(next, parts, None)
        while (part := following.result()) is not None:
            following = thread.submit(next, parts, None)
            yield part


def _files(source: Path) -> list[Path]:
    """The file itself, or the CSV and Parquet files below a folder, sorted."""
    kinds = " or ".join(SUFFIXES)
    if source.is_dir():
        found = [
            file
            for file in sorted(source.rglob("*"))
            if file.name.endswith(SUFFIXES) and file.is_file() and not file.name.startswith(".")
        ]
        if not found:
            raise UserError(f"{source} has no file to read: expected {kinds}.")
        return found
    if not source.exists():
        raise UserError(f"{source} is missing: `make run`, or `dvc pull {source}`.")
    if not source.name.endswith(SUFFIXES):
        raise UserError(f"{source} is of no kind that can be read in chunks: expected {kinds}.")
    return [source]


def _read(
    file: Path,
    types: Mapping[str, pa.DataType],
    common: Mapping[str, pa.DataType],
    rows: int,
    seen: dict[str, tuple[pa.DataType, Path]],
) -> Iterator[pd.DataFrame]:
    is_parquet = file.suffix == ".parquet"
    read = _read_parquet if is_parquet else _read_csv
    gaps = _columns_with_gaps(file) if is_parquet else set()
    for batch in read(file, common if is_parquet else types, rows):
        _refuse_other_guesses(batch.schema, file, types, seen)
        yield _frame(batch, gaps)


def _common_types(files: Iterable[Path]) -> dict[str, pa.DataType]:
    """The type for each column that can hold its values in all Parquet files, if there is one.

    Equal numbers of two types have different hashes, so duplicates would not be found. Files
    without rows are left out: pandas wrote them without knowing the types.
    """
    found: dict[str, list[pa.Schema]] = {}
    for file in files:
        with suppress(pa.ArrowException, OSError):  # raised again when the file is read
            metadata = pq.read_metadata(file)
            for field in metadata.schema.to_arrow_schema() if metadata.num_rows else ():
                found.setdefault(field.name, []).append(pa.schema([field]))
    common = {}
    for name, schemas in found.items():
        with suppress(pa.ArrowTypeError):
            kind = pa.unify_schemas(schemas, promote_options="permissive").field(name).type
            # Categories and bytes would differ from text in other files.
            if not pa.types.is_dictionary(kind) and not pa.types.is_binary(kind):
                common[name] = kind
    return common


def _columns_with_gaps(file: Path) -> set[str]:
    """The columns with missing values according to a Parquet file's statistics."""
    metadata = pq.read_metadata(file)
    groups = [metadata.row_group(n) for n in range(metadata.num_row_groups)]
    columns = [group.column(n) for group in groups for n in range(group.num_columns)]
    return {
        column.path_in_schema
        for column in columns
        if column.statistics is not None and column.statistics.null_count
    }


def _frame(batch: pa.RecordBatch, gaps: set[str]) -> pd.DataFrame:
    """The rows as a frame, with nullable types for columns with missing values or in `gaps`."""
    # Otherwise Arrow converts them to floats and objects, only in batches with missing values.
    if not any(
        field.type in NULLABLE and (field.name in gaps or batch[n].null_count)
        for n, field in enumerate(batch.schema)
    ):
        return batch.to_pandas()
    frame = batch.to_pandas(types_mapper=NULLABLE.get)
    own = batch.schema.empty_table().to_pandas().dtypes  # for columns without missing values
    for n, (name, dtype) in enumerate(own.items()):
        values = frame.iloc[:, n]
        mapped = batch.schema.field(n).type in NULLABLE
        if mapped and not values.hasnans and str(name) not in gaps:
            frame.isetitem(n, values.astype(dtype))
    return frame


def _refuse_other_guesses(
    schema: pa.Schema,
    file: Path,
    types: Mapping[str, pa.DataType],
    seen: dict[str, tuple[pa.DataType, Path]],
) -> None:
    """UserError if an inferred type differs from that in an earlier file."""
    for field in schema:
        if field.name in types or pa.types.is_null(field.type):  # given, or no values
            continue
        kind, earlier = seen.setdefault(field.name, (field.type, file))
        guessed = {".parquet"} != {file.suffix, earlier.suffix}
        if guessed and field.type != kind and file != earlier:  # a file may have a name twice
            raise UserError(
                f"Column {field.name!r} is {kind} in {earlier} and {field.type} in {file}, as CSV "
                'has no types: give its type in `types`, of an id "string".'
            )


def _read_parquet(
    file: Path, types: Mapping[str, pa.DataType], rows: int
) -> Iterator[pa.RecordBatch]:
    # pre_buffer, pyarrow's default, would keep all that was read until the file is closed.
    with pq.ParquetFile(file, pre_buffer=False, buffer_size=2**20) as parquet:
        own = parquet.schema_arrow
        fields = [field.with_type(types.get(field.name, field.type)) for field in own]
        schema = pa.schema(fields, own.metadata)  # the metadata name pandas's index columns
        if parquet.metadata.num_rows == 0:
            yield schema.empty_table()
        for batch in parquet.iter_batches(batch_size=rows):
            yield batch.cast(schema)


def _read_csv(file: Path, types: Mapping[str, pa.DataType], rows: int) -> Iterator[pa.RecordBatch]:
    block = min(rows * 256, 2**30)  # bytes
    # Only without threads do messages on values of a wrong type have the row's number.
    with pa.csv.open_csv(
        file,
        read_options=pa.csv.ReadOptions(use_threads=False, block_size=block),
        parse_options=pa.csv.ParseOptions(newlines_in_values=True),
        convert_options=pa.csv.ConvertOptions(
            column_types=types,
            null_values=MISSING_NUMBERS,
        ),
    ) as reader:
        _refuse_no_csv(reader.schema, file, types)
        n, last = 0, ""
        for batch in reader:
            if len(batch):
                n, last = n + len(batch), str(batch[-1][-1])
            yield _with_gaps(batch)
        if not n:
            yield reader.schema.empty_table()
        if "\n" in last:  # only a quoted value can have one
            _refuse_open_quote(file, len(reader.schema), n)


def _refuse_open_quote(file: Path, columns: int, rows: int) -> None:
    """ArrowInvalid if the last value of a CSV file, which has a line break, has no closing quote.

    Arrow takes all that follows as its value. For an open quote in another column, Arrow complains
    about the number of columns, or the type.
    """
    end = b""
    with pa.input_stream(file) as content:
        while part := content.read(2**20):
            end = (end + part)[-1000:]
    if not end.rstrip().endswith(b'"'):
        raise pa.ArrowInvalid(
            f"In CSV column #{columns - 1}: Row #{rows + 1}: a quote is opened, and none closes "
            "it: the rest of the file would be one value"
        )


def _refuse_no_csv(schema: pa.Schema, file: Path, types: Mapping[str, pa.DataType]) -> None:
    """UserError if a CSV file is not UTF-8 text, or has other separators than commas."""
    try:
        names = schema.names
    except UnicodeDecodeError:
        raise UserError(f"{file} cannot be read: the line of names {NO_UTF8}") from None
    for name, kind in zip(names, schema.types, strict=True):
        if name not in types and pa.types.is_binary(kind):  # Arrow infers this if it is not UTF-8
            raise UserError(f"{file} cannot be read: column {name!r} {NO_UTF8}")
    if told := _other_separator(names):
        raise UserError(f"{file} cannot be read: {told}")
    for name in types:
        if name not in names and (meant := _meant(name, [n for n in names if n not in types])):
            raise UserError(f"{file} has no column {name!r}, as in `types`: is {meant!r} meant?")


def _meant(name: str, names: Sequence[str]) -> str:
    """The one of `names` that differs from a name only in case, spaces or signs; or empty."""
    wanted, *others = (re.sub(r"[\W_]", "", each).casefold() for each in (name, *names))
    return names[others.index(wanted)] if wanted in others else ""


def _other_separator(names: Sequence[str]) -> str:
    """The message for a file whose only name has other separators in it, else an empty text."""
    if len(names) == 1 and (";" in names[0] or "\t" in names[0]):
        return f"its one column is {names[0]!r}: save it with commas between the values."
    return ""


def _with_gaps(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch, with texts that stand for missing values replaced by nulls."""
    for n, field in enumerate(batch.schema):
        if pa.types.is_string(field.type) or pa.types.is_large_string(field.type):
            missing = pc.is_in(batch[n], pa.array(MISSING, field.type))
            texts = pc.if_else(missing, pa.scalar(None, field.type), batch[n])
            batch = batch.set_column(n, field, texts)
    return batch


# ---- writing, and keeping on disk


def _in_order(frame: pd.DataFrame, names: Sequence[Any]) -> pd.DataFrame:
    """The frame with its columns in this order; UserError if it has others."""
    if set(frame) != set(names):
        wrong = ", ".join(sorted(map(str, set(frame) ^ set(names))))
        raise UserError(f"Columns differ between the first rows and later ones: {wrong}.")
    return frame[list(names)]


def also_written(
    frames: Iterable[pd.DataFrame], path: Path, form: Literal["csv", "parquet"]
) -> Iterator[pd.DataFrame]:
    """The same frames, each of them written to one file before it is yielded.

    Raises:
        UserError: a frame has other columns than the first, or values that do not fit its types.
    """
    names: list[Any] = []
    if form == "csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            for n, frame in enumerate(frames):
                names = names or list(frame)
                _in_order(frame, names).to_csv(file, index=False, header=n == 0)
                yield frame
        return
    writer = None
    try:
        for frame in frames:
            names = names or list(frame)
            try:
                table = pa.Table.from_pandas(_in_order(frame, names), preserve_index=False)
            except pa.ArrowException as error:
                why = " ".join(map(str, error.args))
                raise UserError(f"{path} cannot be written: {why}") from None
            writer = writer or pq.ParquetWriter(path, table.schema)
            try:
                writer.write_table(table.cast(writer.schema))
            except (pa.ArrowException, ValueError) as error:
                why = " ".join(str(error).split())
                raise UserError(f"{path}: later rows have another type: {why}") from None
            yield frame
    finally:
        if writer:
            writer.close()


class Buckets:
    """Records in numbered files, which are appended to in any order and read one by one."""

    def __init__(self, folder: Path, dtype: DTypeLike, width: int = 1) -> None:
        folder.mkdir()
        self.folder = folder
        self.dtype = np.dtype(dtype)
        self.width = width  # values in a record

    def append(self, numbers: NDArray[Any], records: NDArray[Any]) -> None:
        """Append each record, (n,) or (n, width), to the file with its number, (n,)."""
        counts = np.bincount(numbers)
        found = np.flatnonzero(counts)
        if len(found) > 1:
            records = records.take(np.argsort(numbers, kind="stable"), axis=0)
        parts = np.split(records, np.cumsum(counts[found]))
        for number, part in zip(found, parts, strict=False):  # there is one empty part more
            with (self.folder / str(number)).open("ab") as file:
                part.tofile(file)

    def read(self, number: int, rows: int = -1) -> Iterator[NDArray[Any]]:
        """The records of a file in the order they were appended, `rows` at a time; -1: at once."""
        path = self.folder / str(number)
        if not path.exists():
            return
        with path.open("rb") as file:
            while (values := np.fromfile(file, self.dtype, max(rows * self.width, -1))).size:
                yield values.reshape(-1, self.width) if self.width > 1 else values

    def take(self, rows: int) -> Iterator[NDArray[Any]]:
        """All records, file by file in the order of numbers; each file is deleted once read."""
        for path in sorted(self.folder.iterdir(), key=lambda path: int(path.name)):
            yield from self.read(int(path.name), rows)
            path.unlink()


def _without_hash(frame: pd.DataFrame) -> Any:
    """The first column that pandas cannot hash."""
    for name in frame:
        try:
            pd.util.hash_pandas_object(frame[[name]], index=False)
        except TypeError:
            return name
    return None


class Duplicates:
    """Counts rows that repeat an earlier one, by a hash of 64 bits.

    Takes 16 bytes per row on disk, and a 64th of that in memory. Among a billion rows, a pair of
    different rows counts as duplicates with a probability of 3%.
    """

    HASHED = np.dtype([("hash", np.uint64), ("row", np.int64)])

    def __init__(self, folder: Path) -> None:
        self.buckets = Buckets(folder / "hashes", self.HASHED)

    def add(self, frame: pd.DataFrame) -> None:
        """Add rows, numbered by their index.

        Raises:
            UserError: a column has lists or other values that cannot be hashed.
        """
        found = np.empty(len(frame), self.HASHED)
        try:
            found["hash"] = pd.util.hash_pandas_object(frame, index=False)
        except TypeError:
            raise UserError(
                f"Column {_without_hash(frame)!r} has values that cannot be compared, such as "
                "lists: give their parts columns of their own, or leave it out of what is compared."
            ) from None
        found["row"] = frame.index
        self.buckets.append((found["hash"] >> np.uint64(58)).astype(np.uint8), found)

    def count(self) -> tuple[int, int | None]:
        """The number of rows that repeat an earlier one, and the first of them."""
        count, first = 0, None
        for number in range(64):
            for records in self.buckets.read(number):
                alike = records[np.argsort(records["hash"], kind="stable")]
                again = alike["row"][1:][alike["hash"][1:] == alike["hash"][:-1]]
                if len(again):
                    count += len(again)
                    first = int(again.min()) if first is None else min(first, int(again.min()))
        return count, first
