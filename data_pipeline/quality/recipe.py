from data_pipeline.recipe import Section


class QualityRecipe(Section):
    model: str = ""
    min_score: float | None = None
    drop_kinds: tuple[str, ...] = ()

    def fingerprint(self):
        return ""
