"""What a window's rows say one by one: verdicts beside its suspects, rows the test passed over, advice about clients.

A function of the tested rows and the reference, like the test itself: a replay finds the same. The rule for clients is
in `clients.py`; the verdicts on arrival, of every row, in `verdicts.py`.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from numpy.typing import NDArray

from hydrophone.detectors import Reference, WindowResult
from hydrophone.detectors.samples import REJECT, SampleVerdicts
from hydrophone.schemas.frame import Frame
from hydrophone.schemas.score import ClientAdvice, Suspect, SuspectVerdict, WindowScore
from hydrophone.streams.clients import advise
from hydrophone.streams.row_verdicts import label, suspect_verdict

__all__ = ["NO_ATTENTION", "Attention", "look_at_rows"]

MOST_ADDED: Final = 20
"""Rejected rows that the test passed over, named in a score."""

Identity = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Attention:
    """`verdicts` of the suspects; `rejected`: rows that the detectors reject, the most suspicious first."""

    clients: tuple[ClientAdvice, ...] = ()
    verdicts: Mapping[Identity, SuspectVerdict] = field(default_factory=dict)
    rejected: tuple[Suspect, ...] = ()

    def drawn_to(self, score: WindowScore) -> WindowScore:
        """The score with what is known of its rows; the same object where nothing is."""
        if not (self.clients or self.verdicts or self.rejected):
            return score
        told = [
            suspect.model_copy(update={"verdict": self.verdicts.get((str(suspect.frame_id), suspect.row))})
            for suspect in score.suspects
        ]
        known = {(suspect.frame_id, suspect.row) for suspect in told}
        topic = score.source.topic if score.source else None
        told += [
            suspect.model_copy(update={"topic": None if suspect.offset is None else topic})
            for suspect in self.rejected
            if (suspect.frame_id, suspect.row) not in known
        ]
        return score.model_copy(update={"suspects": tuple(told), "clients": self.clients})


NO_ATTENTION: Final = Attention()


def look_at_rows(reference: Reference, sample: Frame, result: WindowResult) -> Attention:
    """Without per-sample detectors only a rejecting window's rows are looked at, by the p-values the test gave them."""
    if result.status != "tested":
        return NO_ATTENTION
    if reference.samples is None:
        return _by_the_test(reference, sample, result) if result.rejected else NO_ATTENTION
    rows = sample.take(_places(sample, result))
    verdicts = reference.samples.judge(rows)
    clients = _advice(rows, verdicts.p_value, reference.samples.manifest.sizes.calibration)
    wanted = {(row.origin.frame_id, row.origin.row) for row in result.suspects}
    named = {
        (origin.frame_id, origin.row): suspect_verdict(verdicts, place)
        for place, origin in enumerate(result.origins)
        if (origin.frame_id, origin.row) in wanted
    }
    return Attention(clients, named, _rejected(rows, verdicts, result))


def _by_the_test(reference: Reference, sample: Frame, result: WindowResult) -> Attention:
    if sample.client_ids is None or not result.row_p_values:
        return NO_ATTENTION
    rows = sample.take(_places(sample, result))
    return Attention(_advice(rows, np.array(result.row_p_values), reference.manifest.sizes.reference))


def _advice(rows: Frame, p_values: NDArray[np.floating], clean_rows: int) -> tuple[ClientAdvice, ...]:
    if rows.client_ids is None:
        return ()
    samples = None if rows.sample_ids is None else list(rows.sample_ids)
    return advise(list(rows.client_ids), p_values, clean_rows=clean_rows, samples=samples)


def _rejected(rows: Frame, verdicts: SampleVerdicts, result: WindowResult) -> tuple[Suspect, ...]:
    rejected = np.flatnonzero(verdicts.decision == REJECT)
    order = np.argsort(-verdicts.suspicion[rejected], kind="stable")
    return tuple(_suspect(rows, place, verdicts, result) for place in rejected[order][:MOST_ADDED].tolist())


def _suspect(rows: Frame, place: int, verdicts: SampleVerdicts, result: WindowResult) -> Suspect:
    origin = result.origins[place]
    known = origin.offset >= 0
    return Suspect(
        row=origin.row,
        frame_id=uuid.UUID(origin.frame_id),
        score=result.row_scores[place],
        p_value=result.row_p_values[place] if result.row_p_values else None,
        sample_id=label(rows.sample_ids[place] if rows.sample_ids else None),
        client_id=label(rows.client_ids[place] if rows.client_ids else None),
        partition=origin.partition if known else None,
        offset=origin.offset if known else None,
        verdict=suspect_verdict(verdicts, place),
    )


def _places(sample: Frame, result: WindowResult) -> NDArray[np.intp]:
    """Where the tested rows stand in the sample; rows that repeat another were not tested."""
    at = {(origin.frame_id, origin.row): place for place, origin in enumerate(sample.row_origins())}
    return np.array([at[origin.frame_id, origin.row] for origin in result.origins], np.intp)
