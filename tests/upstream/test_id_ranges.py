from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lorabridge.upstream.id_ranges import IdRanges

runs = st.lists(st.tuples(st.integers(1, 4), st.integers(1, 4), st.integers(0, 3)), max_size=20)


@given(runs=runs)
def test_ranges_say_the_same_as_a_set_and_forget_what_the_cursor_has_passed(runs: list[tuple[int, int, int]]) -> None:
    ranges, wanted, last, cursor = IdRanges(), set[int](), 0, 0
    for gap, length, moved in runs:
        first = last + gap
        last = first + length - 1
        ranges.add(first, last)
        wanted |= set(range(first, last + 1))
        cursor = min(cursor + moved, last)
        while cursor + 1 in wanted:
            cursor += 1
        assert ranges.absorb(cursor) == cursor
        for record_id in range(cursor + 1, last + 3):
            assert (record_id in ranges) == (record_id in wanted)
