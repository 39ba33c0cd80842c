"""The diagnosis as a whole: its numbers add up, and its story is true of data with one kind of error only."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.diagnosis_cases import APART, LOOSE, PLACE, event, inputs_of, random_case
from vjepa_loc.dataset import read_dataset, read_predictions
from vjepa_loc.diagnosis import diagnose
from vjepa_loc.diagnosis_errors import BACKGROUND, DOUBLE, KINDS, find_errors
from vjepa_loc.diagnosis_oracles import Oracles
from vjepa_loc.errors import ConfigError
from vjepa_loc.metrics import stal, tal
from vjepa_loc.scoring_input import ScoringInput

REFERENCE = Path(__file__).resolve().parents[3] / "shared" / "data" / "reference_scores" / "jhmdb_mix_a"
METRICS = {"tal": tal, "stal": stal}


def mean_ap(metric, inputs):
    return METRICS[metric].compute(inputs, thresholds=[0.5]).values[f"{metric}/map@0.50"]


def figures(truths, predictions, **more):
    return diagnose(inputs_of(truths, predictions, **more)).to_dict()


def counts(answer):
    return {kind: row["count"] for kind, row in answer["false_positives"].items() if row["count"] and kind != "all"}


def check_sums(answer):
    errors = dict(answer["false_positives"])
    everything = errors.pop("all")
    num_false = sum(row["count"] for row in errors.values())
    assert everything["count"] == num_false
    assert sum(row["share"] for row in errors.values()) == pytest.approx(1 if num_false else 0)
    assert answer["num_predictions"] == answer["num_found"] + num_false + answer["num_left_out"]
    for bins in answer["missed"].values():
        assert sum(row["truths"] for row in bins.values()) == answer["num_truths"]
        assert sum(row["found"] for row in bins.values()) == answer["num_found"]
        assert all(row["truths"] and row["recall"] == row["found"] / row["truths"] for row in bins.values())
    num_missed = answer["num_truths"] - answer["num_found"]
    assert sum(row["missed"] for row in answer["nearest"].values()) == num_missed
    every_gain = [*answer["false_positives"].values(), *answer["nearest"].values(), answer["all_missed"]]
    every_gain += [row for bins in answer["missed"].values() for row in bins.values()]
    for row in every_gain:
        after = row.get("map_if_mended", row.get("map_if_found"))
        assert row["gain"] == after - answer["map"] >= -1e-12 and after <= 1 + 1e-12
    json.dumps(answer, allow_nan=False)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("boxless", [0.0, 0.3, 1.0])
def test_the_numbers_add_up_and_explain_the_metric(seed, boxless):
    truths, predictions = random_case(seed, boxless)
    inputs = inputs_of(truths, predictions, seams={"v": np.array([16, 32])})
    answer = diagnose(inputs).to_dict()
    check_sums(answer)
    assert answer["map"] == pytest.approx(mean_ap(answer["metric"], inputs), abs=1e-12)
    assert answer["metric"] == ("tal" if boxless == 1 else "stal")


@pytest.mark.skipif(not REFERENCE.is_dir(), reason=f"needs the reference predictions in {REFERENCE}")
def test_real_predictions():
    truth = read_dataset(REFERENCE / "truth.json")
    inputs = ScoringInput.of(truth, read_predictions(REFERENCE / "predictions.json", truth))
    answer = diagnose(inputs).to_dict()
    check_sums(answer)
    assert answer["map"] == pytest.approx(mean_ap("stal", inputs), abs=1e-12)
    assert sum(counts(answer).values()) == 28 and answer["num_truths"] == 40


# Truth of three labels, apart from each other in time, with one answer each that is right but for one thing.
TRUTHS = [event(at * 100, at * 100 + 40, PLACE, label=label) for at, label in enumerate(["take", "return", "rummage"] * 3)]
NEXT = {"take": "return", "return": "rummage", "rummage": "take"}
SPOILT = {
    "wrong label": lambda one: [one.replace(label=NEXT[one.label])],
    "bad boundary": lambda one: [event(one.start_frame, one.end_frame + 60, PLACE, one.score, one.label)],
    "bad box": lambda one: [event(one.start_frame, one.end_frame, LOOSE, one.score, one.label)],
    "double detection": lambda one: [one, one.replace(score=one.score - 0.001)],
    "background": lambda one: [one, event(one.start_frame + 1000, one.end_frame + 1000, PLACE, one.score + 0.001, one.label)],
    "several faults": lambda one: [event(one.start_frame, one.end_frame + 60, APART, one.score, one.label)],
}


@pytest.mark.parametrize(
    "kind, boxed",
    [*((kind, True) for kind in SPOILT), *((kind, False) for kind in SPOILT if kind not in ("bad box", "several faults"))],
)
def test_with_one_kind_of_error_that_kind_is_all_that_is_missing(kind, boxed):
    answers = [one.replace(score=0.9 - 0.01 * at) for at, one in enumerate(TRUTHS)]
    spoilt = [part for at, one in enumerate(answers) for part in (SPOILT[kind](one) if at % 2 else [one])]
    truths = TRUTHS
    if not boxed:
        truths, spoilt = (
            [event(one.start_frame, one.end_frame, None, one.score, one.label) for one in some] for some in (truths, spoilt)
        )
    answer = figures(truths, spoilt)
    assert counts(answer) == {kind: 4}
    assert answer["map"] < 1
    gains = {name: row["gain"] for name, row in answer["false_positives"].items()}
    assert gains.pop(kind) == gains.pop("all") == pytest.approx(1 - answer["map"])
    assert set(gains.values()) == {0}
    found_nothing = kind not in ("double detection", "background")
    assert answer["num_found"] == (5 if found_nothing else 9)
    assert list(answer["nearest"]) == ([kind] if found_nothing else [])


def test_with_nothing_but_missed_truths_they_are_all_that_is_missing():
    answer = figures(TRUTHS, [TRUTHS[0].replace(score=0.5)])
    assert counts(answer) == {} and answer["false_positives"]["all"]["gain"] == 0
    assert answer["map"] == pytest.approx(1 / 9) and answer["all_missed"]["map_if_found"] == 1
    assert answer["nearest"] == {"none near": {"missed": 8, "map_if_found": 1, "gain": pytest.approx(8 / 9)}}


def test_mending_by_hand():
    truths = [event(0, 10), event(100, 110), event(200, 210)]
    background, short, shorter, right = (
        event(500, 510, score=0.9), event(0, 4, score=0.8), event(0, 3, score=0.7), event(100, 110, score=0.6)
    )  # fmt: skip
    answer = figures(truths, [background, short, shorter, right])
    assert counts(answer) == {"background": 1, "bad boundary": 2}
    # Ranked: false, false, false, true: one of three truths at a precision of 1/4.
    assert answer["map"] == pytest.approx(1 / 3 * 1 / 4)
    # false, true (the better one of the two), true.
    assert answer["false_positives"]["bad boundary"]["map_if_mended"] == pytest.approx(1 / 3 * (2 / 3 + 2 / 3))
    assert answer["false_positives"]["background"]["map_if_mended"] == pytest.approx(1 / 3 * 1 / 3)
    assert answer["false_positives"]["all"]["map_if_mended"] == pytest.approx(2 / 3)
    # Two truths found before everything else, then three false ones, then the third truth: 1, 1, 3/6.
    assert answer["all_missed"]["map_if_found"] == pytest.approx(2.5 / 3)


def test_a_corrected_label_is_ranked_among_those_of_its_new_label():
    truths = [event(0, 10), event(100, 110, label="return")]
    predictions = [event(100, 110, score=0.9), event(0, 10, score=0.8), event(300, 310, score=0.95, label="return")]
    answer = figures(truths, predictions)
    assert counts(answer) == {"wrong label": 1, "background": 1} and answer["map"] == pytest.approx(1 / 2 * 1 / 2)
    # take: true; return: false, true.
    assert answer["false_positives"]["wrong label"]["map_if_mended"] == pytest.approx((1 + 1 / 2) / 2)


def test_a_label_without_truth_lowers_nothing_but_could_have_found_something():
    inputs = inputs_of([event(0, 10)], [event(0, 10, score=0.9, label="rummage"), event(50, 60, score=0.8, label="rummage")])
    diagnosis = diagnose(inputs)
    errors = diagnosis.to_dict()["false_positives"]
    assert errors["wrong label"]["map_if_mended"] == 1 and errors["background"]["gain"] == 0
    assert any("false positives of labels without truth to find here: 2;" in note for note in diagnosis.notes)


def mended(inputs, found, kinds):
    """Predictions in which these kinds are really mended, for the metric to score."""
    best, kept = {}, []
    missed = set(np.flatnonzero(found.missed_G).tolist())
    for at in found.ranked_P.tolist():
        kind, truth = int(found.kind_P[at]), int(found.truth_P[at])
        one = inputs.predictions.events[at]
        if kind not in kinds:
            kept.append(one)
        elif kind not in (DOUBLE, BACKGROUND) and truth in missed and truth not in best:
            best[truth] = one
            kept.append(inputs.truths.events[truth].replace(score=one.score))
    return kept


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("metric", ["tal", "stal"])
def test_oracles_against_scoring_predictions_that_are_really_mended(metric, seed):
    truths, predictions = random_case(seed)
    # No two truths alike, and no ties: a mended one then finds the truth it was made for.
    truths = list({(one.video_id, one.label, one.start_frame): one for one in truths}.values())
    order = np.random.default_rng(seed).permutation(len(predictions))
    predictions = [one.replace(score=0.9 - 0.01 * int(at)) for one, at in zip(predictions, order, strict=True)]
    inputs = inputs_of(truths, predictions)
    found = find_errors(inputs, metric, 0.5)
    oracles = Oracles(inputs, found)
    assert oracles.map == pytest.approx(mean_ap(metric, inputs), abs=1e-12)
    for kinds in [*([kind] for kind in range(len(KINDS))), range(len(KINDS))]:
        really = inputs_of(truths, mended(inputs, found, set(kinds)))
        assert oracles.mended(kinds) == pytest.approx(mean_ap(metric, really), abs=1e-12), kinds
    chosen = np.arange(len(truths)) % 2 == 0
    extra = [truths[at].replace(score=2.0) for at in np.flatnonzero(chosen & found.missed_G)]
    assert oracles.with_found(chosen) == pytest.approx(mean_ap(metric, inputs_of(truths, extra + predictions)), abs=1e-12)


def test_no_predictions():
    answer = figures(TRUTHS, [])
    check_sums(answer)
    assert answer["metric"] == "stal" and answer["map"] == 0 and answer["all_missed"]["map_if_found"] == 1
    assert answer["false_positives"]["all"] == {"count": 0, "share": 0, "map_if_mended": 0, "gain": 0}
    assert answer["profile"] == [] and answer["nearest"]["none near"]["missed"] == 9


def test_no_truth():
    diagnosis = diagnose(inputs_of([], [event(0, 9, PLACE, 0.5)]))
    answer = diagnosis.to_dict()
    check_sums(answer)
    assert counts(answer) == {"background": 1} and answer["map"] == answer["false_positives"]["all"]["gain"] == 0
    assert any("no truth to find in 2 videos" in note for note in diagnosis.notes)
    assert {row[3] for row in diagnosis.tables[0].rows} == {None}, "no first G of a label without truths"
    assert diagnosis.pictures == ()
    assert [table.name for table in diagnosis.tables] == ["false positives", "costly false positives"]


def test_nothing_at_all():
    check_sums(figures([], []))


def test_without_boxes_on_one_side_time_is_explained():
    for truths, predictions, why in [
        ([event(0, 9)], [event(0, 9, PLACE, 0.5)], "no truth has a box"),
        ([event(0, 9, PLACE)], [event(0, 9, None, 0.5)], "no prediction has a box"),
    ]:
        diagnosis = diagnose(inputs_of(truths, predictions))
        assert diagnosis.figures["metric"] == "tal" and diagnosis.figures["map"] == 1
        assert "bad box" not in diagnosis.figures["false_positives"]
        assert any(why in note for note in diagnosis.notes)


def test_truths_without_boxes_among_others_are_counted_in_a_note():
    diagnosis = diagnose(inputs_of([event(0, 9), event(50, 60, PLACE)], [event(0, 9, PLACE, 0.5)]))
    check_sums(diagnosis.to_dict())
    assert diagnosis.figures["num_truths"] == 1 and diagnosis.figures["num_left_out"] == 1
    note = "truths without boxes, neither found nor missed: 1; predictions on them, neither true nor false: 1"
    assert note in diagnosis.notes


def test_the_profile_takes_as_many_per_label_as_it_has_truths():
    truths = [event(0, 10), event(100, 110), event(0, 10, label="return")]
    far = [event(500 + at, 501 + at, score=0.5 - 0.01 * at) for at in range(30)]
    other = [event(0, 10, score=0.1, label="return"), event(0, 9, score=0.09, label="return")]
    predictions = [event(0, 10, score=0.9), event(0, 9, score=0.8), event(100, 110, score=0.7), *far, *other]
    profile = figures(truths, predictions)["profile"]
    assert len(profile) == 10
    assert [{kind: num for kind, num in part.items() if num} for part in profile[:3]] == [
        {"true": 2, "double detection": 1}, {"true": 1, "double detection": 1, "background": 1}, {"background": 2}
    ]  # fmt: skip


def test_the_most_costly_come_with_their_places():
    truths = [event(0, 40), event(100, 120), event(200, 210, label="return"), event(900.5, 910)]
    far = [event(500, 510, score=0.1) for _ in range(12)]
    predictions = [event(0, 16, score=0.3), event(100, 120, score=0.9, label="return"), *far]
    answer = figures(truths, predictions)
    false = answer["costly_false_positives"]
    assert len(false) == 10 and [row["score"] for row in false[:3]] == [0.9, 0.3, 0.1]
    assert false[0] == {
        "video": "v", "label": "return", "start": 100, "end": 120, "score": 0.9, "kind": "wrong label",
        "nearest truth": "take", "its start": 100, "its end": 120, "temporal IoU": 1.0,
    }  # fmt: skip
    assert false[2]["kind"] == "background" and false[2]["nearest truth"] is None
    missed = answer["costly_missed"]
    # The only truth of its label is worth most, then the longest.
    assert [(row["label"], row["start"]) for row in missed] == [("return", 200), ("take", 0), ("take", 100), ("take", 900.5)]
    assert [row["mAP that hangs on it"] for row in missed] == pytest.approx([1 / 2, 1 / 6, 1 / 6, 1 / 6])
    assert [row["it is"] for row in missed] == ["none near", "bad boundary", "wrong label", "none near"]
    assert missed[1]["temporal IoU"] == 0.4 and missed[1]["nearest prediction"] == "take"


def test_a_kind_that_was_given_with_respect_to_another_truth_says_so():
    # The second prediction is a double of the second truth, and overlaps the first, which is missed, more than any other.
    truths = [event(0, 130), event(50, 100)]
    (missed,) = figures(truths, [event(50, 100, score=0.9), event(40, 95, score=0.8)])["costly_missed"]
    assert (missed["start"], missed["its start"], missed["it is"]) == (0, 40, "double detection, of another truth")


def test_tables_and_pictures_are_drawn_from_the_figures():
    diagnosis = diagnose(inputs_of(TRUTHS, [event(0, 40, PLACE, 0.5), event(100, 140, LOOSE, 0.4, "return")]))
    assert [table.slug for table in diagnosis.tables] == [
        "false-positives", "missed-truths", "missed-truths-nearest", "costly-false-positives", "costly-missed-truths",
        "false-positive-profile",
    ]  # fmt: skip
    for table in diagnosis.tables:
        assert table.title and all(len(row) == len(table.columns) for row in table.rows)
    assert diagnosis.tables[0].csv().startswith("kind,false positives,share,")
    errors, missed = diagnosis.tables[:2]
    assert "stal/map@0.50 = 0.111" in errors.title
    assert [row[:4] for row in errors.rows if row[1]] == [("bad box", 1, 1.0, 1), ("all", 1, 1.0, 1)]
    assert missed.rows[-1][:6] == ("all", "", 9, 1, 8, pytest.approx(1 / 9))
    assert len(diagnosis.pictures) == 3
    assert all(picture.svg.startswith("<svg") and picture.title and picture.caption for picture in diagnosis.pictures)


@pytest.mark.parametrize("threshold", [0, -0.1, 1.1, float("nan")])
def test_a_threshold_that_is_none_is_refused(threshold):
    with pytest.raises(ConfigError, match="threshold of the diagnosis: expected a number above 0 and up to 1"):
        diagnose(inputs_of(TRUTHS, []), threshold)
