"""What a reference's manifest says of its per-sample detectors. The arrays lie beside it in files of their own."""

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["FOREST", "SAMPLES", "SAMPLE_FILES", "SampleManifest", "SampleSizes"]

SAMPLES: Final = "samples.safetensors"
FOREST: Final = "samples-forest.skops"
SAMPLE_FILES: Final = (SAMPLES, FOREST)


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SampleSizes(_Part):
    """Rows, each in one place alone."""

    density: int = Field(description="natural rows that densities, axes and mixtures were fitted on")
    ranks: int = Field(description="natural rows whose measures' tails were fitted, and a regression's clean side")
    calibration: int = Field(description="natural rows that nothing was fitted on: a p-value ranks among them")
    labelled: int = Field(
        0, description="labelled rows, natural and noisy ones among them, that a regression and a forest were fitted on"
    )
    held_out: int = Field(0, description="labelled rows of other sources, that only thresholds were taken from")
    excluded_bad: int = Field(0, description="rows with a non-finite value, left out")
    excluded_shared: int = Field(0, description="natural rows whose sources are among the labelled ones, left out")


class SampleManifest(_Part):
    """Everything about the detectors but their arrays."""

    format: Literal["1"] = "1"
    base_sha256: str = Field("", description="of the reference they were added to; its permutations are used on")
    layers: dict[str, int] = Field(description="layers that are judged, and their features")
    embedding: str = Field(description="the layer of the densities; the others are companions")
    output_classes: int | None = Field(description="width of `output` where frames must bring it")
    uncertainty: tuple[str, ...] = Field(description="MC-dropout measures that frames must bring")
    classes: tuple[int, ...] | None = Field(description="predicted classes with a density of their own")
    measures: tuple[str, ...] = Field(description="in the order of the arrays")
    constant: tuple[str, ...] = Field((), description="measures that were constant at fitting: they cannot rank a row")
    branches: tuple[str, ...] = Field(description="sums of measures of which the rarest speaks")
    components: int = Field(ge=1, description="of each mixture")
    axes: int = Field(ge=1, description="most principal axes of each mixture")
    abstain_level: float = Field(gt=0, lt=1, description="share of clean rows abstained on or rejected")
    reject_level: float = Field(gt=0, lt=1, description="share of clean rows rejected")
    gate_level: float = Field(0.05, gt=0, lt=1, description="share of clean rows that the gate refuses")
    seed: int
    sizes: SampleSizes
    attacks: dict[str, str] = Field({}, description="attacks known at fitting, and the family of each")
    family_threshold: float | None = Field(None, description="least probability of a family that is named; null: none")
    attack_threshold: float | None = Field(None, description="least probability of an attack that is named; null: none")
    held_out_auc: dict[str, float] = Field({}, description="per attack, ROC-AUC of the suspicion on held-out sources")

    @property
    def order(self) -> tuple[str, ...]:
        """Layers as the detectors have them, the embedding first: JSON does not keep the order of `layers`."""
        return (self.embedding, *sorted(name for name in self.layers if name != self.embedding))
