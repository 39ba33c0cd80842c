import warnings
import xml.etree.ElementTree as ElementTree

from vjepa_loc.picture import drawing, figure_svg


def draw() -> str:
    with drawing() as figure:
        axes = figure.subplots()
        axes.bar([0, 1], [1, 2])
        axes.set_xlabel("length <frames> & more")
        return figure_svg(figure)


def test_a_figure_is_one_svg_element_of_any_size():
    root = ElementTree.fromstring(draw())
    assert root.tag.endswith("svg") and "viewBox" in root.attrib
    assert not {"width", "height"} & set(root.attrib)
    assert "length <frames> & more" in "".join(root.itertext())


def test_the_same_figure_is_the_same_text():
    assert draw() == draw()


def test_names_are_shown_as_they_are_in_any_script():
    names = [r"cost $\foo$ {", "$1_2$", "拾う 🥛"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with drawing() as figure:
            figure.subplots().barh(names, [1, 2, 3])
            text = "".join(ElementTree.fromstring(figure_svg(figure)).itertext())
    assert all(name in text for name in names)
