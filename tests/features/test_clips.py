"""The clip rule by hand, against a step-by-step definition, and streamed against planned."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.clips import Clip, ClipAssembler, ClipRule, PlannedClip, overlap_frames, plan_clips
from vjepa_loc.errors import ConfigError


def stream(rule: ClipRule, numbers: list[int], batch_sizes: list[int]) -> tuple[list[Clip], int]:
    """The clips of a video whose sampled frame n is filled with n % 251; and the most frames the assembler ever held."""
    assembler, clips, position, most = ClipAssembler(rule), [], 0, 0
    while position < len(numbers):
        size = batch_sizes[len(clips) % len(batch_sizes)]
        batch = np.array(numbers[position : position + size], dtype=np.int64)
        pixels = np.broadcast_to((batch % 251).astype(np.uint8)[:, None, None, None], (len(batch), 1, 1, 3))
        clips.extend(assembler.push(batch, pixels))
        most = max(most, len(assembler._frames))
        position += size
    clips.extend(assembler.finish())
    assert assembler.num_sampled == len(numbers)
    return clips, most


@st.composite
def rules(draw) -> ClipRule:
    tubelet = draw(st.integers(1, 3))
    clip_steps = draw(st.integers(1, 9))
    overlap = draw(st.integers(0, clip_steps - 1)) * tubelet
    return ClipRule(clip_steps * tubelet, tubelet, overlap, draw(st.sampled_from(["central", "earliest"])), draw(st.booleans()))


def owner_by_definition(step: int, clips: list[PlannedClip], keep: str) -> PlannedClip:
    holding = [clip for clip in clips if clip.start <= step < clip.stop]
    if keep == "earliest":
        return holding[0]
    return min(holding, key=lambda clip: (abs(2 * step - (clip.start + clip.stop - 1)), clip.start))


def test_clips_of_64_frames_follow_each_other_and_the_last_is_shifted_back():
    rule = ClipRule(64, 2)
    assert plan_clips(128, rule) == [PlannedClip(0, 32, 0, 32), PlannedClip(32, 64, 32, 64)]
    # 150 frames are 75 steps; the last clip covers 43 to 75, and from step 54 on it is the more central one.
    assert plan_clips(150, rule) == [PlannedClip(0, 32, 0, 32), PlannedClip(32, 64, 32, 54), PlannedClip(43, 75, 54, 75)]
    earliest = ClipRule(64, 2, keep="earliest")
    assert plan_clips(150, earliest)[1:] == [PlannedClip(32, 64, 32, 64), PlannedClip(43, 75, 64, 75)]


def test_the_example_of_the_module_docstring():
    assert plan_clips(20, ClipRule(8, 2)) == [PlannedClip(0, 4, 0, 4), PlannedClip(4, 8, 4, 7), PlannedClip(6, 10, 7, 10)]


def test_an_odd_number_of_frames_repeats_the_last_one():
    (clip,), _ = stream(ClipRule(8, 2), [0, 1, 2, 3, 4], [2])
    assert clip.frame_numbers_nu.tolist() == [[0, 1], [2, 3], [4, 4]]
    assert clip.frames_THW3[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 4]
    assert (clip.first_seen, clip.last_seen) == (0, 4)


def test_a_short_video_has_its_own_length_or_is_padded_for_a_fixed_encoder():
    (own,), _ = stream(ClipRule(8, 2), [0, 1, 2], [3])
    assert own.frames_THW3.shape[0] == 4 and own.num_kept == 2
    (padded,), _ = stream(ClipRule(8, 2, fixed=True), [0, 1, 2], [3])
    assert padded.frames_THW3[:, 0, 0, 0].tolist() == [0, 1, 2, 2, 2, 2, 2, 2]
    assert padded.num_kept == 2 and padded.frame_numbers_nu.tolist() == [[0, 1], [2, 2]]


def test_no_frames_make_no_clips():
    assert plan_clips(0, ClipRule(8, 2)) == []
    assert stream(ClipRule(8, 2), [], [1])[0] == []


@given(rules(), st.integers(0, 80))
def test_every_step_is_kept_once_in_order_from_the_clip_that_the_rule_names(rule, num_sampled):
    clips = plan_clips(num_sampled, rule)
    kept = [step for clip in clips for step in range(clip.keep_start, clip.keep_stop)]
    assert kept == list(range(-(-num_sampled // rule.tubelet)))
    for clip in clips:
        assert clip.start <= clip.keep_start <= clip.keep_stop <= clip.stop
        for step in range(clip.keep_start, clip.keep_stop):
            assert owner_by_definition(step, clips, rule.keep) == clip
    if len(clips) > 1:
        assert all(clip.stop - clip.start == rule.clip_steps for clip in clips)
        assert all(later.start - clip.start == rule.stride_steps for clip, later in zip(clips, clips[1:-1], strict=False))


@settings(max_examples=150)
@given(rules(), st.integers(0, 80), st.integers(1, 5), st.lists(st.integers(1, 30), min_size=1, max_size=4))
def test_streaming_makes_the_planned_clips_within_one_clip_and_one_stride(rule, num_sampled, frame_step, batch_sizes):
    numbers = list(range(0, num_sampled * frame_step, frame_step))
    clips, most = stream(rule, numbers, batch_sizes)
    planned = plan_clips(num_sampled, rule)
    assert [(c.start_step, c.start_step + c.keep.start, c.start_step + c.keep.stop) for c in clips] == [
        (p.start, p.keep_start, p.keep_stop) for p in planned
    ]
    padded = numbers + numbers[-1:] * (-num_sampled % rule.tubelet)
    for clip, plan in zip(clips, planned, strict=True):
        seen = padded[plan.start * rule.tubelet : plan.stop * rule.tubelet]
        shown = seen + seen[-1:] * (rule.clip_frames - len(seen)) if rule.fixed else seen
        assert clip.frames_THW3[:, 0, 0, 0].tolist() == [number % 251 for number in shown]
        kept = padded[plan.keep_start * rule.tubelet : plan.keep_stop * rule.tubelet]
        assert clip.frame_numbers_nu.ravel().tolist() == kept
        assert (clip.first_seen, clip.last_seen) == (seen[0], seen[-1])
    assert most <= rule.clip_frames + rule.stride_steps * rule.tubelet


@pytest.mark.parametrize(
    ("fraction", "expected"), [(0.0, 0), (0.5, 32), (0.25, 16), (0.99, 62), (0.02, 2), (0.01, 0)]
)
def test_an_overlap_is_whole_steps_and_leaves_a_stride(fraction, expected):
    assert overlap_frames(fraction, 64, 2) == expected


def test_a_rule_that_cannot_be_is_refused_with_both_values():
    with pytest.raises(ConfigError, match="multiple of tubelet 2, got 7"):
        ClipRule(7, 2)
    with pytest.raises(ConfigError, match="overlap must be a multiple of tubelet 2 below clip_frames 8, got 8"):
        ClipRule(8, 2, overlap=8)
