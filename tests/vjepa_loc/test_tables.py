import numpy as np
import pytest

from vjepa_loc.atomic import write_text
from vjepa_loc.tables import ResultTable, cell_text, write_csvs

TABLE = ResultTable("False positives, by kind", ("", "number", "share"), (("a, b", 1200, 0.1), ("c", 0, None)))


def test_csv_keeps_numbers_in_full_and_commas_in_cells():
    assert TABLE.csv() == ',number,share\n"a, b",1200,0.1\nc,0,\n'
    assert ResultTable("t", ("x",), ((1 / 3,),)).csv() == "x\n0.3333333333333333\n"


def test_cells_for_people():
    assert [cell_text(cell) for cell in ("x", None, 0.12345, 1234.56, 12345)] == ["x", "–", "0.123", "1,234.6", "12,345"]
    assert TABLE.texts()[1] == ("c", "0", "–")


def test_csv_files_of_tables_that_are_no_more_do_not_stay_and_those_of_others_do(tmp_path):
    for name in ("mine.csv", "note.txt"):
        (tmp_path / name).write_text("x")
    write_csvs([TABLE, ResultTable("Index", ("x",), ()), ResultTable("Old", ("x",), ())], tmp_path)
    assert (tmp_path / "old.csv").exists() and (tmp_path / "index-2.csv").exists()
    paths = write_csvs([TABLE, TABLE], tmp_path)
    assert [path.name for path in paths] == ["false-positives-by-kind.csv", "false-positives-by-kind-2.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [paths[1].name, paths[0].name, "index.csv", "mine.csv", "note.txt"]
    assert (tmp_path / "index.csv").read_text() == (
        'file,table\nfalse-positives-by-kind.csv,"False positives, by kind"\nfalse-positives-by-kind-2.csv,"False positives, by kind"\n'
    )


def test_files_of_an_interrupted_writing_are_known_to_the_next(tmp_path, monkeypatch):
    write_csvs([ResultTable("Old", ("x",), ())], tmp_path)
    written = []

    def interrupted(path, text):
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(write_text(path, text))

    monkeypatch.setattr("vjepa_loc.tables.write_text", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_csvs([TABLE, ResultTable("New", ("x",), ())], tmp_path)
    monkeypatch.undo()
    write_csvs([ResultTable("Last", ("x",), ())], tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["index.csv", "last.csv"]


@pytest.mark.parametrize("text", ["", "x", "file,table\n../mine.csv,Mine\nmine.txt\n", "file,what\nmine.csv,Mine\n", "\x00"])
def test_an_index_of_somebody_else_removes_nothing(tmp_path, text):
    folder = tmp_path / "tables"
    folder.mkdir()
    for path in (tmp_path / "mine.csv", folder / "mine.csv"):
        path.write_text("x")
    (folder / "index.csv").write_text(text)
    write_csvs([TABLE], folder)
    assert (tmp_path / "mine.csv").exists() and (folder / "mine.csv").exists()


def test_a_column_name_in_lines_is_one_name_in_a_file():
    assert ResultTable("t", ("x", "95% \nlow"), (("a", 1),)).csv() == "x,95% low\na,1\n"
    assert ResultTable("A long title, of 3 videos", ("x",), (), name="short name").slug == "short-name"


def test_numbers_of_numpy_are_numbers():
    row = (np.float64(0.25), np.int64(1200), -0.0001)
    table = ResultTable("t", ("a", "b", "c"), (row,))
    assert table.texts() == [("0.250", "1,200", "0.000")] and table.csv() == "a,b,c\n0.25,1200,-0.0001\n"


def test_a_wide_table_becomes_several_that_begin_alike():
    table = ResultTable("t", ("name", "a", "b\nbbb", "c"), (("x", 0.5, 0.5, 0.5), ("y", 1, 2, 3)))
    assert table.fitted(1 + 7 + 3 * 8) == [table]
    first, second = table.fitted(1 + 7 + 3 * 8 - 1)
    assert (first.columns, first.rows[1]) == (("name", "a", "b\nbbb"), ("y", 1, 2))
    assert (second.title, second.columns, second.rows[1]) == ("t (continued)", ("name", "c"), ("y", 3))
    columns = tuple("abcdefg")
    assert [len(part.columns) for part in ResultTable("t", columns, (columns,)).fitted(1 + 6 * 4)] == [4, 4]


def test_a_long_table_says_how_much_more_there_is():
    table = ResultTable("t", ("name", "a"), tuple((str(index), index) for index in range(5)))
    assert table.shortened(5) is table
    assert table.shortened(3).rows == (("0", 0), ("1", 1), ("2", 2), ("... 2 more", ""))


def test_long_text_is_broken_into_lines():
    (table,) = ResultTable("t", ("name", "because"), (("x", "word " * 30), ("y", None))).fitted(40)
    assert max(map(len, table.rows[0][1].split("\n"))) <= 40 - 1 - 7 - 3 and table.rows[1] == ("y", None)
    endless = ResultTable("t", ("name", "because"), (("x", "word" * 30),))
    assert endless.fitted(40)[0].rows[0][1].replace("\n", "") == "word" * 30


def test_a_long_name_of_a_row_is_broken_too():
    table = ResultTable("t", ("name", "a", "b"), (("word " * 30, 0.5, 0.5), ("y", 1, 2)))
    (narrow,) = table.fitted(80)
    assert max(map(len, narrow.rows[0][0].split("\n"))) <= 40 and narrow.rows[1] == ("y", 1, 2)
    assert ResultTable("t", ("name",), (("x" * 50,),)).fitted(80)[0].rows == (("x" * 50,),), "there is room"


@pytest.mark.parametrize("room", range(-3, 12))
def test_a_first_column_that_leaves_next_to_no_room_is_printed_all_the_same(room):
    width = 40
    table = ResultTable("Long names", ("name", "text"), (("n" * (width - 4 - room), "a text of several words"),))
    assert [part.rows[0][0].replace("\n", "") for part in table.fitted(width)] == [table.rows[0][0]]
