from vjepa_loc.tables import ResultTable, cell_text, write_csvs

TABLE = ResultTable("False positives, by kind", ("", "number", "share"), (("a, b", 1200, 0.1), ("c", 0, None)))


def test_csv_keeps_numbers_in_full_and_commas_in_cells():
    assert TABLE.csv() == ',number,share\n"a, b",1200,0.1\nc,0,\n'
    assert ResultTable("t", ("x",), ((1 / 3,),)).csv() == "x\n0.3333333333333333\n"


def test_cells_for_people():
    assert [cell_text(cell) for cell in ("x", None, 0.12345, 1234.56, 12345)] == ["x", "–", "0.123", "1,234.6", "12,345"]
    assert TABLE.texts()[1] == ("c", "0", "–")


def test_csv_files_of_tables_that_are_no_more_do_not_stay(tmp_path):
    (tmp_path / "old.csv").write_text("x")
    (tmp_path / "note.txt").write_text("x")
    paths = write_csvs([TABLE, TABLE], tmp_path)
    assert [path.name for path in paths] == ["false-positives-by-kind.csv", "false-positives-by-kind-2.csv"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [paths[1].name, paths[0].name, "note.txt"]
