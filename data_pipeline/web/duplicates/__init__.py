"""Documents that are there twice: equal texts, near duplicates by MinHash, their clusters, and which one of a cluster is kept."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from data_pipeline.web.duplicates.builder import ClusterBuilder
    from data_pipeline.web.duplicates.clustering import clusters, exact_originals, exact_originals_of
    from data_pipeline.web.duplicates.recipe import Duplicates
    from data_pipeline.web.duplicates.representatives import choose_representatives, cluster_sizes
    from data_pipeline.web.duplicates.signatures import signature, similarity, text_key

__all__ = [
    "signature",
    "similarity",
    "text_key",
    "clusters",
    "exact_originals",
    "exact_originals_of",
    "ClusterBuilder",
    "choose_representatives",
    "cluster_sizes",
    "Duplicates",
]
FILES = {
    "signature": "signatures",
    "similarity": "signatures",
    "text_key": "signatures",
    "clusters": "clustering",
    "exact_originals": "clustering",
    "exact_originals_of": "clustering",
    "ClusterBuilder": "builder",
    "choose_representatives": "representatives",
    "cluster_sizes": "representatives",
    "Duplicates": "recipe",
}


def __getattr__(name: str) -> Any:
    # Late, so that reading a recipe loads neither numpy nor compiled loops.
    if name in FILES:
        from importlib import import_module

        return getattr(import_module(f"data_pipeline.web.duplicates.{FILES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
