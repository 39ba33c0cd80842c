from features.terminal import print_table, table_width


def test_a_table_is_as_wide_as_the_terminal_and_no_wider_than_asked(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert table_width(100) == 60 and table_width(40) == 40
    monkeypatch.delenv("FORCE_COLOR")
    assert table_width(100) == 100, "no terminal"


def test_a_title_that_is_longer_than_its_table_stays_one_line(capsys):
    title = "/a/long/path/of/a/dataset.json, encoder tiny built-in"
    print_table(title, ["a"], [["1"]])
    assert capsys.readouterr().out.splitlines()[0] == title
