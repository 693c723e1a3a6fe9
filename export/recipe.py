"""The [export] section: how a package is quantized and what it must still be able to say."""

from typing import Literal

from pydantic import Field

from data_pipeline.recipe import Section


class ExportRecipe(Section):
    """[export]"""

    bits: Literal[4, 8, 32] = Field(4, description="bits per linear weight; 32 leaves everything in float32 and is meant for comparisons")
    block: Literal[16, 32, 64, 128] = Field(32, description="weights that share one scale; larger is smaller and faster, and less exact")
    symmetric: bool = Field(False, description="true fixes the zero point in the middle, which saves half a byte per block")
    search: bool = Field(True, description="look for the scale of least squared error in each block instead of taking the extremes")
    accuracy_level: Literal[0, 1, 2, 3, 4] = Field(4, description="MatMulNBits: 4 multiplies in int8 (fast on CPU), 0 and 1 in float32")
    embedding_bits: Literal[4, 8, 32] = Field(4, description="bits per embedding weight")
    context: int = Field(0, ge=0, description="positions the package serves; 0 takes what the model was trained for")
    kl_budget: float = Field(0.1, gt=0, description="largest mean KL divergence per token, in nats, from the float32 model")
    top1_budget: float = Field(0.85, ge=0, le=1, description="least share of tokens with the float32 model's most likely successor")
    check_tokens: int = Field(4096, ge=16, description="tokens that the check runs over")
