"""`WindowScore`: what the test said about one window, with the evidence to check it. Alerts do not live here."""

import uuid
from typing import ClassVar, Literal

from pydantic import Field

from hydrophone.schemas.event import Event, Probability, Sha256, Value, WindowBounds, event_id

__all__ = [
    "Action",
    "Attack",
    "Branch",
    "ClientAdvice",
    "Contamination",
    "Counts",
    "Decision",
    "Evidence",
    "Joint",
    "LayerScore",
    "PriorShift",
    "ReferenceId",
    "Repeated",
    "Replay",
    "Source",
    "SourcePart",
    "Strata",
    "Suspect",
    "SuspectVerdict",
    "Trace",
    "WindowScore",
    "score_id",
]


class SourcePart(Value):
    """What one partition of `activations` gave to a sharded model's window: offsets `[first_offset, close_offset)`."""

    partition: int
    first_offset: int
    close_offset: int


class Source(Value):
    """The records behind the score: offsets `[first_offset, close_offset)` of one partition.

    Of a sharded model `parts` has those of every partition; the first stands here.
    """

    topic: str
    partition: int
    first_offset: int
    close_offset: int
    parts: tuple[SourcePart, ...] = ()


class ReferenceId(Value):
    version: str
    sha256: Sha256


class Counts(Value):
    """Rows of this window. `seen` fell into it and were usable; `tested` of them entered the test."""

    seen: int
    tested: int
    rejected: int = Field(0, description="rows with a non-finite value or an impossible time, left out")
    quarantined: int = Field(0, description="rows dated in the future, by the model's records since its last score")
    duplicate: int = Field(0, description="records whose frame this window had already counted")
    late_since_previous: int = Field(0, description="rows that came after their window closed, since the last score")
    ignored_tensors: int = Field(0, description="tensors in this window's frames that the reference does not know")


class Joint(Value):
    """All layers together: `p_value` = (1 + #{null >= observed}) / (draws + 1). Ranked among K clean windows where
    `calibration` is `windows`, among B permutations otherwise; the p-values of layers are always from permutations."""

    p_value: Probability
    statistic: float
    e_value: float = Field(description="(B + 1) exp(M_0) / sum_b exp(M_b): an exact e-value (Koning, arXiv 2310.01153)")


class LayerScore(Value):
    """`mmd2`: unbiased MMD² at the median bandwidth, null for `(output)`; `p_adjusted`: maxT-adjusted over all."""

    mmd2: float | None
    statistic: float
    p_value: Probability
    p_adjusted: Probability
    detection_rate: Probability | None = Field(None, description="share of re-draws whose test of this layer rejects")


class Branch(Value):
    """The statistic that carried the joint maximum."""

    layer: str
    measure: str = Field(description="mmd_global, mmd_same_class, density, mahalanobis, residual, or of the output")
    bandwidth: float | None = Field(None, description="of a kernel, in units of the layer's median distance")


class Strata(Value):
    """Permutation strata in use: predicted classes and how many window rows each held."""

    rows: dict[str, int]


Decision = Literal["accept", "abstain", "reject"]
"""What the per-sample detectors say of a row: like clean rows, cannot tell, unlike them."""

Action = Literal["observe", "challenge", "throttle", "block"]
"""What to do about a client, from least to most."""


class Attack(Value):
    """Which attack a row looks like. A name is null where it is too close to call; its probability is then the best
    one's."""

    family: str | None
    family_probability: Probability
    name: str | None
    probability: Probability


class SuspectVerdict(Value):
    """What the per-sample detectors say of a suspect; the whole verdict is on the `verdicts` topic."""

    decision: Decision
    suspicion: float | None
    p_value: Probability | None
    attack: Attack | None = None


class Suspect(Value):
    """One row of the window, by how much it pulled the statistic."""

    row: int
    frame_id: uuid.UUID
    score: float
    p_value: Probability | None = Field(None, description="conformal, of the row alone, against clean rows")
    is_named: bool = Field(False, description="by Benjamini-Hochberg within a rejecting window")
    sample_id: str | None = None
    client_id: str | None = None
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None
    xy: tuple[float, float] | None = Field(None, description="the reference's fixed two-component projection")
    verdict: SuspectVerdict | None = Field(None, description="where the reference has per-sample detectors")


class ClientAdvice(Value):
    """One client's tested rows of this window, and what the rule in `streams/clients.py` makes of them."""

    client_id: str
    rows: int = Field(description="of the client, among the tested rows that name one")
    flagged: int = Field(description="of those, rows not like clean ones")
    expected: float = Field(description="flagged rows that clean traffic of so many rows has, on average")
    p_value: Probability = Field(description="of so many flagged rows, times the clients looked at")
    sample_ids: tuple[str, ...] = Field((), description="a few of the flagged rows, most suspicious first")
    action: Action
    reason: str


class PriorShift(Value):
    """How the window's mix of predicted classes compares with the reference's. Its own signal: the test does not see
    it where rows change sides within their class."""

    p_value: Probability
    statistic: float
    shares: dict[str, tuple[float, float]] = Field(
        description="share of each class (`other`: of all without a stratum): in the window, in the reference"
    )


class Repeated(Value):
    """One group of equal or nearly equal rows; the ids are of a few of them."""

    rows: int = Field(description="rows of the group, the tested one included")
    is_exact: bool = Field(description="all of the same bytes; else some differ by as little as rounding does")
    sample_ids: tuple[str, ...] = ()
    client_ids: tuple[str, ...] = ()


class Replay(Value):
    """Rows that repeat another row of the window. They are tested once; `p_value` is of so many repetitions."""

    rows: int = Field(description="rows left out of the test because they repeat another")
    p_value: Probability = Field(description="beta-binomial tail at the rate of natural traffic; 1 without repetition")
    groups: tuple[Repeated, ...] = Field(description="the largest, largest first")


class Contamination(Value):
    """The share of the window's rows that are not like the reference's, with an interval."""

    fraction: Probability
    low: Probability
    high: Probability
    level: Probability = Field(description="confidence of the interval")


class Evidence(Value):
    """The tested rows as one frame file."""

    uri: str
    sha256: Sha256


class Trace(Value):
    """W3C trace context of the window's span."""

    traceparent: str


class WindowScore(Event):
    """One window of one model, tested or said not to be. The wire form of a `WindowResult`."""

    event_type: ClassVar[str] = "org.hydrophone.score.v1"

    model: str
    window: WindowBounds
    source: Source | None
    reference: ReferenceId | None
    counts: Counts
    k: int | None = Field(description="most rows a window may test; null where every row was tested")
    nominal_k: int | None = Field(None, description="k asked for; `k` is less where tests could not keep pace")
    sampling_key_id: str | None
    status: Literal["tested", "not_tested"]
    reason: str | None = Field(None, description="why a window was not tested")
    joint: Joint | None = None
    layers: dict[str, LayerScore] = Field(default_factory=dict)
    branch: Branch | None = None
    alpha: Probability = Field(description="level in force: below `nominal_alpha` where the reference is small")
    nominal_alpha: Probability | None = Field(None, description="level asked for when the reference was fitted")
    rejected: bool
    calibration: Literal["permutation", "stratified", "blocks", "windows"] = Field(description="the null p is from")
    calibration_windows: int | None = Field(None, description="clean windows ranked among, where those are the null")
    strata: Strata | None = None
    effective_rows: int
    bin_rows: int = Field(1, description="rows that change sides together in a permutation")
    suspects: tuple[Suspect, ...] = ()
    clients: tuple[ClientAdvice, ...] = Field((), description="clients with flagged rows, the most urgent first")
    contamination: Contamination | None = None
    prior_shift: PriorShift | None = None
    replay: Replay | None = None
    detection_rate: Probability | None = Field(
        None, description="share of re-drawn sub-windows that differ at alpha; the layer-wise method's published metric"
    )
    baseline_detection_rate: Probability | None = Field(None, description="the same, of the reference's held-out half")
    permutations: int
    content_sha256: Sha256 = Field(description="over what was tested, not over what came out: equal on every replay")
    evidence: Evidence | None = None
    device: str
    config_sha256: Sha256 | None = None
    trace: Trace | None = None


def score_id(model: str, window: WindowBounds, reference: ReferenceId | None) -> uuid.UUID:
    return event_id("score", model, window.start_ms, window.end_ms, reference.sha256 if reference else "no_reference")
