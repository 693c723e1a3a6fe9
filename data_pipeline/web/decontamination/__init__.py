from data_pipeline.recipe import Section


class Decontamination(Section):
    benchmarks: tuple[str, ...] = ()
    coverage: float = 0.5


def fingerprint_of(x):
    return ""
