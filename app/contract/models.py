"""Schemas of models and of the workers that run them."""

from __future__ import annotations

from pydantic import BaseModel, Field

from app.contract.schemas import ModelInfo
from pictures.findings import Probability, Thresholds


class MeasuredRow(BaseModel):
    """Measured accuracy on pictures of one generator, or of all, against photographs."""

    pictures: str = Field(description="a generator, or `all generators`")
    n: int = Field(gt=0, description="number of AI-generated pictures")
    auc: Probability
    auc_interval: tuple[Probability, Probability] = Field(description="95 % confidence, bootstrap")
    tpr_at_fpr_1: Probability = Field(description="true positive rate at 1 % false positives")
    tpr_at_fpr_5: Probability = Field(description="true positive rate at 5 % false positives")


class Measured(BaseModel):
    """Measured accuracy of a model on pictures that it was not trained on."""

    conditions: str = Field(description="which pictures, and how they were prepared")
    photographs: int = Field(gt=0)
    false_alarms: Probability = Field(description="share of them with the verdict `ai_generated`")
    false_alarms_interval: tuple[Probability, Probability] = Field(
        description="95 % confidence, Wilson"
    )
    rows: list[MeasuredRow] = Field(min_length=1, description="all generators first")


class WorkerInfo(BaseModel):
    """Data of a live worker, which it registers in Redis."""

    name: str
    model: ModelInfo
    trained: bool
    backbone: str
    parameters: int
    crop_size: int
    min_side: int = 0
    thresholds: Thresholds
    device: str
    dtype: str
    measured: Measured | None = None


class ModelFacts(BaseModel):
    """Response of `GET /v1/model`: a summary of the model card."""

    name: str
    version: str
    digest: str | None = Field(description="of weights and config, as in records")
    trained: bool = Field(description="false: the weights are random and scores mean nothing")
    backbone: str
    parameters: int
    crop_size: int = Field(description="side of a crop, pixels")
    min_side: int = Field(
        description="shortest side of a picture that gets a score, pixels; 0: any picture does"
    )
    thresholds: Thresholds
    fetch: bool = Field(
        default=False, description="whether an upload may name a `url` in place of a file"
    )
    search_links: bool = Field(
        default=True,
        description="whether the page links to reverse image searches, which are other services",
    )
    notice: str | None = Field(description="reliability of the scores")
    measured: Measured | None = Field(
        default=None, description="null: the checkpoint has no results"
    )
