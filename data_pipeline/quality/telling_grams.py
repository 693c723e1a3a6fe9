"""The n-grams that tell a model most, by name: buckets are hashes, so names are found by going through a sample of training documents."""

from collections import Counter, defaultdict
from typing import Any

import numpy as np

from data_pipeline.quality.gram_names import named_grams
from data_pipeline.quality.labels import Example
from data_pipeline.quality.model import Parts

SAMPLE = 2000  # documents
SITES = 3  # a gram must stand on so many sites of the sample, or it tells of one site only


def telling_grams(parts: Parts, examples: list[Example], count: int = 40, sample: int = SAMPLE) -> dict[str, Any]:
    """For the score and each kind the grams with the largest and the smallest weights: [{gram, weight, documents}].

    Of grams that share a bucket the commonest gives it its name. Grams in fewer than three documents are left out. Every k-th document
    is looked at, so that there are at most `sample` of them.
    """
    every = max(1, -(-len(examples) // sample))
    names: dict[int, Counter[str]] = defaultdict(Counter)
    sites: dict[int, set[str]] = defaultdict(set)
    for example in examples[::every]:
        for bucket, name in set(named_grams(example.text, parts.bits, parts.word_grams, parts.character_grams)):
            names[bucket][name] += 1
            if len(sites[bucket]) < SITES:
                sites[bucket].add(example.site)
    known = [
        (place, *names[bucket].most_common(1)[0])
        for place, bucket in enumerate(parts.columns.tolist())
        if len(sites.get(bucket, ())) >= SITES and names[bucket].most_common(1)[0][1] >= 3
    ]
    found: dict[str, Any] = {"sampled_documents": len(examples[::every])}
    for output, title in enumerate(("score", *parts.kinds)):
        weights = parts.weights[:, output].astype(np.float64)
        ranked = sorted(known, key=lambda one: (-weights[one[0]], one[1]))

        def row(one: tuple[int, str, int], weights: np.ndarray = weights) -> dict[str, Any]:
            return {"gram": one[1], "weight": round(float(weights[one[0]]), 4), "documents": one[2]}

        found[title] = {
            "for": [row(one) for one in ranked[:count] if weights[one[0]] > 0],
            "against": [row(one) for one in ranked[::-1][:count] if weights[one[0]] < 0],
        }
    return found
