from features.terminal import table_width


def test_a_table_is_as_wide_as_the_terminal_and_no_wider_than_asked(monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert table_width(100) == 60 and table_width(40) == 40
    monkeypatch.delenv("FORCE_COLOR")
    assert table_width(100) == 100, "no terminal"
