"""A sample of documents to labels by a teacher at a chat endpoint."""

from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import Field

from data_pipeline import storage
from data_pipeline.errors import InputError
from data_pipeline.quality import rubric
from data_pipeline.quality.answer_cache import AnswerCache, key_of
from data_pipeline.quality.endpoint import Endpoint, EndpointFailure
from data_pipeline.quality.labels import in_batches, read_texts, site_of
from data_pipeline.quality.metrics import kappa, spearman
from data_pipeline.quality.rubric import Answer, messages_of, read_answer
from data_pipeline.quality.sampling import Candidate, Drawn, draw, is_chosen
from data_pipeline.recipe import Section
from data_pipeline.records import Document

if TYPE_CHECKING:
    from data_pipeline.quality.model import QualityModel

FAILURES_IN_A_ROW = 10  # documents without an answer after which the endpoint counts as gone


class LabellingSettings(Section):
    """How a teacher is asked."""

    model: str = Field(min_length=1, description="the endpoint's name of the teacher")
    sample: int = Field(default=10_000, ge=1, le=10_000_000, description="documents to ask about; all where there are fewer")
    twice: float = Field(default=0.05, ge=0, le=1, description="share of them that is asked about a second time, page and rubric swapped")
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the sample; also sent to the endpoint")
    parallel: int = Field(default=8, ge=1, le=512, description="requests at the same time")
    max_characters: int = Field(default=6_000, ge=100, le=1_000_000, description="of a page that the teacher sees")
    temperature: float = Field(default=0.0, ge=0, le=2)
    max_tokens: int = Field(default=200, ge=16, le=100_000, description="of an answer; a teacher that thinks first needs more")
    asks: int = Field(default=3, ge=1, le=10, description="how often one verdict is asked for when the answer holds no score")


class Verdict(NamedTuple):
    """What came of one document: first and second answer, why there is none, tokens and requests that were paid for now."""

    first: Answer | None
    second: Answer | None
    failure: str
    garbage: int
    asked: int
    usage: Counter[str]


class Teacher:
    """Asks for verdicts, from the cache where the same was asked before."""

    def __init__(self, settings: LabellingSettings, endpoint: Endpoint, cache: AnswerCache) -> None:
        self.settings, self.endpoint, self.cache = settings, endpoint, cache

    def verdict(self, document: Document) -> Verdict:
        """First and, for the share that is asked twice, second answer."""
        found: list[Answer | None] = []
        garbage, asked, usage = 0, 0, Counter[str]()
        for number in range(2 if is_chosen(self.settings.seed + 1, document.id, self.settings.twice) else 1):
            answer = None
            for attempt in range(self.settings.asks):
                if self.endpoint.stopped.is_set():
                    return Verdict(None, None, "stopped", garbage, asked, usage)
                body = self.body(document.text, number, attempt)
                try:
                    content, paid = self.content(body, usage)
                except EndpointFailure as failure:
                    return Verdict(found[0] if found else None, None, failure.reason, garbage, asked, usage)
                asked += paid
                answer = read_answer(content)
                if answer is not None:
                    break
                garbage += 1
            found.append(answer)
        failure = "" if found[0] else f"no score in {self.settings.asks} answers"
        return Verdict(found[0], found[1] if len(found) > 1 else None, failure, garbage, asked, usage)

    def body(self, text: str, number: int, attempt: int) -> dict[str, Any]:
        """The request: a second verdict and a repeated question differ from the first in seed (and the second verdict in its order)."""
        return {
            "model": self.settings.model,
            "messages": messages_of(text, self.settings.max_characters, swapped=number == 1),
            "temperature": self.settings.temperature,
            "max_tokens": self.settings.max_tokens,
            "seed": (self.settings.seed + 1_000 * number + attempt) % 2**31,
        }

    def content(self, body: dict[str, Any], usage: Counter[str]) -> tuple[str, bool]:
        """The answer's text, and whether it was paid for now."""
        key = key_of(body)
        known = self.cache.get(key)
        if known is not None:
            return known["content"], False
        answer = self.endpoint.ask(body)
        self.cache.put(key, answer)
        usage.update({name: int(count) for name, count in answer["usage"].items() if type(count) is int})
        return answer["content"], True


def sample_of(documents: str, settings: LabellingSettings, first: "QualityModel | None") -> list[Drawn]:
    """The drawn documents; a first model's scores are a stratum where there is one."""

    def candidates() -> Iterator[Candidate]:
        for batch in in_batches(read_texts(documents), 2_000):
            scores = first.arrays([one.text for one in batch]).value if first else np.full(len(batch), -1.0)
            for document, score in zip(batch, np.floor(scores + 0.5).astype(int), strict=True):
                if document.text.strip():
                    yield Candidate(document.id, site_of(document.url, document.id), len(document.text), int(score))

    return draw(candidates(), settings.sample, settings.seed)


def label(
    documents: str,
    settings: LabellingSettings,
    endpoint: Endpoint,
    out: str,
    cache_path: str,
    first: "QualityModel | None" = None,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> dict[str, Any]:
    """Writes the labels file when all is asked, and `OUT.report.json`; returns the report.

    Answers are kept in the cache as they come, so a run that was killed goes on where it was, and one that is done costs nothing.
    """
    drawn = {one.id: one for one in sample_of(documents, settings, first)}
    if not drawn:
        raise InputError(f"{documents}: no document with text in it")
    texts = {one.id: one for one in read_texts(documents) if one.id in drawn}
    order = [texts[identity] for identity in drawn]
    with AnswerCache(cache_path) as cache:
        verdicts = ask_all(Teacher(settings, endpoint, cache), order, cache_path, progress)
    rows = [
        label_row(document, drawn[document.id], verdict, settings)
        for document, verdict in zip(order, verdicts, strict=True)
        if verdict.first is not None
    ]
    if not rows:
        raise InputError(f"{endpoint.url}: not one of {len(order)} documents got a verdict; the first: {verdicts[0].failure}")
    storage.write_json_lines(out, rows)
    report = report_of(settings, order, verdicts)
    storage.write_json(f"{out}.report.json", report)
    return report


def ask_all(teacher: Teacher, documents: list[Document], cache_path: str, progress: Callable[[int, int], None]) -> list[Verdict]:
    """Every document's verdict, in order; stops with one line when so many in a row fail that the endpoint must be gone."""
    verdicts: list[Verdict] = []
    failed = 0
    pool = ThreadPoolExecutor(teacher.settings.parallel)
    try:
        for verdict in pool.map(teacher.verdict, documents):
            verdicts.append(verdict)
            failed = failed + 1 if verdict.failure and verdict.first is None else 0
            if failed >= FAILURES_IN_A_ROW:
                raise InputError(
                    f"{teacher.endpoint.url}: {failed} documents in a row without a verdict, the last: {verdict.failure}; "
                    f"the answers so far are in {cache_path}, and the same command goes on from them"
                )
            progress(len(verdicts), len(documents))
    finally:
        teacher.endpoint.stopped.set()
        pool.shutdown(wait=True, cancel_futures=True)
    return verdicts


def label_row(document: Document, drawn: Drawn, verdict: Verdict, settings: LabellingSettings) -> dict[str, Any]:
    """One row of the labels file: with two answers the score is their mean and the kind the first's."""
    first, second = verdict.first, verdict.second
    assert first is not None
    return {
        "id": document.id,
        "url": document.url,
        "score": (first.score + second.score) / 2 if second else first.score,
        "kind": first.kind,
        "reason": first.reason,
        "scores": [one.score for one in (first, second) if one],
        "kinds": [one.kind for one in (first, second) if one],
        "stratum": list(drawn.stratum),
        "stands_for": round(drawn.stands_for, 4),
        "model": settings.model,
        "rubric": rubric.VERSION,
    }


def report_of(settings: LabellingSettings, documents: list[Document], verdicts: list[Verdict]) -> dict[str, Any]:
    """What was asked, what failed, and how far two verdicts on the same page agree."""
    usage = sum((one.usage for one in verdicts), Counter[str]())
    failed = {document.id: one.failure for document, one in zip(documents, verdicts, strict=True) if one.first is None}
    done = [one.first for one in verdicts if one.first is not None]
    return {
        "settings": settings.model_dump(mode="json"),
        "documents": len(documents),
        "labelled": len(done),
        "failed": len(failed),
        "failures": dict(list(failed.items())[:20]),
        "answers_without_score": sum(one.garbage for one in verdicts),
        "answers_paid_now": sum(one.asked for one in verdicts),
        "tokens_paid_now": dict(sorted(usage.items())),
        "scores": {str(value): sum(round(one.score) == value for one in done) for value in range(6)},
        "kinds": dict(sorted(Counter(one.kind or "none" for one in done).items())),
        "agreement": agreement([(one.first, one.second) for one in verdicts if one.first and one.second]),
    }


def agreement(pairs: list[tuple[Answer, Answer]]) -> dict[str, Any]:
    """Of two verdicts on the same pages: equal scores, Cohen's kappa plain and squared-weighted, Spearman; kappa of the kinds."""
    if not pairs:
        return {"documents": 0}
    one, other = (np.array([answer.score for answer in side]) for side in zip(*pairs, strict=True))
    whole, whole_other = np.floor(one + 0.5).astype(int), np.floor(other + 0.5).astype(int)
    places = {kind: place for place, kind in enumerate(("", *rubric.KINDS))}
    kinds = [np.array([places[answer.kind] for answer in side]) for side in zip(*pairs, strict=True)]
    return {
        "documents": len(pairs),
        "equal_scores": float((whole == whole_other).mean()),
        "within_one": float((np.abs(whole - whole_other) <= 1).mean()),
        "kappa": kappa(whole, whole_other),
        "weighted_kappa": kappa(whole, whole_other, weighted=True),
        "spearman": spearman(one, other),
        "kind_kappa": kappa(kinds[0], kinds[1]),
    }
