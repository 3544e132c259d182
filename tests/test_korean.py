"""Particles, numerals and what is glued to names."""

import pytest

from hybriko_jax.korean import (
    native_number,
    numbers_in,
    parse_number,
    particle,
    sino_number,
    split_particles,
)


@pytest.mark.parametrize(
    "word,closed,expected",
    [
        ("책", "을", "을"),
        ("메모", "을", "를"),
        ("서울", "으로", "로"),
        ("부산", "으로", "으로"),
        ("a.html", "을", "을"),
        ("a.txt", "을", "를"),
        ("문서(3)", "이", "이"),
        ("사진", "이랑", "이랑"),
        ("지도", "이라는", "라는"),
    ],
)
def test_a_particle_fits_the_last_sound(word, closed, expected):
    assert particle(word, closed) == expected


def test_numerals():
    spoken = [native_number(n) for n in (1, 5, 12, 20, 21, 99)]
    assert spoken == ["한", "다섯", "열두", "스무", "스물한", "아흔아홉"]
    assert [sino_number(n) for n in (10, 15, 100, 240, 1000)] == [
        "십",
        "십오",
        "백",
        "이백사십",
        "천",
    ]
    assert all(parse_number(native_number(n)) == n for n in range(1, 100))
    assert all(parse_number(sino_number(n)) == n for n in range(1, 9999, 7))
    assert parse_number("만") == 10_000 and parse_number("줄") is None


@pytest.mark.parametrize(
    "text,expected",
    [
        ("앞에서 네 줄만", [4]),
        ("맨 아래 열 다섯줄 봐줘", [15]),
        ("20번 보내", [20]),
        ("스무 줄", [20]),
        ("a2.txt 마지막 이십 줄", [2, 20]),
        ("로그 천오백 줄", [1500]),
        ("1,000줄", [1000]),
        ("3천 줄", [3000]),
        ("41459만 보여줘", [414_590_000, 41_459]),
        ("두 단계까지 이십삼초에 한 번", [2, 23, 1]),
        ("팔초로 실행", [8]),
        ("아무것도 없음", []),
    ],
)
def test_numbers_of_a_text(text, expected):
    assert numbers_in(text) == expected


def test_glued_particles_come_off_and_the_word_itself_stays():
    assert split_particles("음악폴더로")[0] == "음악폴더로"
    assert {"음악폴더", "음악"} <= set(split_particles("음악폴더로"))
    assert "메모" in split_particles("메모를")
    assert split_particles("를") == ["를"]
