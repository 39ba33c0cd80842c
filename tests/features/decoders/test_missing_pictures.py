from features.decoders.missing_pictures import MissingPictures

PERIOD = 10


def missing(packets: list[int | None], pictures: list[int | None], codec: str = "hevc", accounted: tuple[int, ...] = ()) -> list[int]:
    watch = MissingPictures(codec)
    for ticks in packets:
        watch.packet(ticks)
    for ticks in accounted:
        watch.accounted(ticks)
    for ticks in pictures:
        watch.picture(ticks)
    return watch.ticks(PERIOD)


def test_a_packet_without_its_picture_is_missing():
    assert missing([0, 30, 10, 20], [0, 10, 20, 30]) == []
    assert missing([0, 30, 10, 20, 40], [0, 10, 30]) == [20, 40]


def test_what_came_before_the_first_picture_leant_on_a_part_that_was_cut_away():
    assert missing([30, 10, 20, 40], [30, 40]) == []


def test_the_second_field_of_a_picture_is_not_missing():
    assert missing([0, 5, 10, 15, 20, 25], [0, 10, 20]) == []


def test_an_error_that_was_reported_is_not_counted_again():
    assert missing([0, 10, 20], [0, 20], accounted=(10,)) == []
    watch = MissingPictures("hevc")
    watch.accounted(None)


def test_a_clock_that_starts_again_and_packets_without_times():
    assert missing([0, 10, 20, 0, 10, 20, None], [0, 10, 20, 0, 10, 20, None]) == []


def test_codecs_with_hidden_pictures_are_not_watched():
    assert missing([0, 10, 20], [0, 20], codec="vp8") == []


def test_without_a_picture_there_is_nothing_to_compare_with():
    assert missing([0, 10], []) == []
