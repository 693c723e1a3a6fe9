"""Reading a teacher's answers, and what it is asked."""

import pytest

from data_pipeline.quality.rubric import KINDS, Answer, messages_of, read_answer


@pytest.mark.parametrize(
    ("content", "answer"),
    [
        ('{"reason": "clear", "score": 4, "kind": "concept"}', Answer(4, "concept", "clear")),
        ('```json\n{"score": "3", "kind": "Procedure"}\n```', Answer(3, "procedure", "")),
        ('Here you are: {"score": 2.5, "kind": "poem"} Hope it helps {x}', Answer(2.5, "", "")),
        ('<think>{"score": 5}? no</think>{"score": 1, "kind": "other"}', Answer(1, "other", "")),
        ('{"score": 0} then better {"score": 2}', Answer(2, "", "")),
        ("The page is fine.\nEducational score: 3\nKind: reference", Answer(3, "reference", "")),
        ("**Score:** 4/5", Answer(4, "", "")),
        ("I would say the score is 0.", Answer(0, "", "")),
        ('{"score": "4/5"}', Answer(4, "", "")),
    ],
)
def test_answers_that_say_a_score(content: str, answer: Answer) -> None:
    assert read_answer(content) == answer


@pytest.mark.parametrize(
    "content",
    [
        "",
        "I cannot judge this.",
        '{"score": 7}',
        '{"score": -1}',
        '{"score": true}',
        '{"score": null, "kind": "concept"}',
        "score 3 or score 4",
        "score: 30",
        "<think>score: 4 and then the answer was cut off",
        "{" * 5_000,
    ],
)
def test_answers_that_do_not(content: str) -> None:
    assert read_answer(content) is None


def test_the_question_holds_rubric_and_page_and_no_page_can_end_its_frame() -> None:
    text = "before ============ after. " + "word " * 50
    (one,), (other,) = messages_of(text, 150, False), messages_of(text, 150, True)
    assert all(kind in one["content"] for kind in KINDS)
    assert one["content"] != other["content"]
    assert sorted(one["content"].split()) == sorted(other["content"].split())
    mark = "=" * 13
    assert one["content"].split(mark)[2].strip().startswith("before")
    assert one["content"].split(mark)[2].strip().endswith("[...]")
    assert len(one["content"].split(mark)) == 4
