"""The encoder with each kind of attention, in padded rows as on a GPU: what each takes, and what it changes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from bench.parakeet.device import Stopwatch
from bench.parakeet.results import Attention, ComparisonPlan, agreement
from worker.adapters.parakeet.attention import on_the_same_weights, sees_its_whole_input, with_fused_attention
from worker.adapters.parakeet.buckets import BUCKETS_SAMPLES
from worker.adapters.parakeet.decoding import GreedyTdt
from worker.adapters.parakeet.loaded import LoadedModel
from worker.adapters.parakeet.padded import PaddedWindows
from worker.ports import Pcm

NEMOS, NEMOS_FUSED, OURS = "NeMo's", "NeMo's with SDPA", "ours"


def attentions(loaded: LoadedModel, plan: ComparisonPlan, windows: Sequence[Pcm]) -> Mapping[str, Attention]:
    """Each kind takes its turn as often as the plan says. On a CPU, rows are one window each."""
    rows = plan.batch_size if loaded.on_gpu else 1
    by_length = sorted(windows, key=len, reverse=True)
    batches = [by_length[start : start + rows] for start in range(0, len(by_length), rows)]
    kinds = {name: _Kind(loaded, encoder, rows, plan) for name, encoder in _encoders(loaded.network)}
    answers = {name: kind.answers(batches) for name, kind in kinds.items()}
    turns = [{name: kind.seconds(batches) for name, kind in kinds.items()} for _ in range(plan.repeats)]
    tokens = {name: list(_tokens(loaded, answer)) for name, answer in answers.items()}
    return {
        name: Attention(
            seconds=tuple(turn[name] for turn in turns),
            largest_difference=_largest_difference(answers[name], answers[NEMOS]),
            tokens=agreement(tokens[name], tokens[NEMOS]),
        )
        for name in kinds
    }


def with_our_attention(network: Any) -> Any:
    """Its encoder, for windows of every bucket. Its attention must be over the whole input."""
    hops = BUCKETS_SAMPLES[-1] // network.preprocessor.featurizer.hop_length + 1
    return with_fused_attention(network.encoder, -(-hops // network.encoder.subsampling_factor))


def _encoders(network: Any) -> Iterator[tuple[str, Any]]:
    encoder = network.encoder
    yield NEMOS, encoder
    if sees_its_whole_input(encoder):
        fused = on_the_same_weights(encoder)
        for layer in fused.layers:
            layer.self_attn.use_pytorch_sdpa = True
        yield NEMOS_FUSED, fused
        yield OURS, with_our_attention(network)


class _Kind:
    def __init__(self, loaded: LoadedModel, encoder: Any, rows: int, plan: ComparisonPlan) -> None:
        self._watch = Stopwatch(loaded.device)
        network = SimpleNamespace(encoder=encoder, preprocessor=loaded.network.preprocessor)
        self._encode = PaddedWindows(
            replace(loaded, network=network), rows, graphs=plan.gpu_graphs, lap=self._watch.lap
        )
        if loaded.on_gpu:
            self._encode.warm_up(0)

    def answers(self, batches: Sequence[Sequence[Pcm]]) -> list[tuple[Tensor, Tensor]]:
        return [self._encode(batch) for batch in batches]

    def seconds(self, batches: Sequence[Sequence[Pcm]]) -> float:
        """Of the encoder alone."""
        self._watch.seconds.clear()
        for batch in batches:
            self._watch.go()
            self._encode(batch)
        return self._watch.seconds["encoder"]


def _largest_difference(answers: Sequence[tuple[Tensor, Tensor]], others: Sequence[tuple[Tensor, Tensor]]) -> float:
    return max(
        float((row[:valid] - other[:valid]).abs().max())
        for (rows, lengths), (other_rows, _) in zip(answers, others, strict=True)
        for row, other, valid in zip(rows, other_rows, lengths.tolist(), strict=True)
        if valid
    )


@torch.inference_mode()
def _tokens(loaded: LoadedModel, answers: Sequence[tuple[Tensor, Tensor]]) -> Iterator[list[str]]:
    decode = GreedyTdt(loaded.network, block_steps=8)
    for rows, lengths in answers:
        steps = decode(rows, lengths)
        for emitted, labels in zip(steps.emitted.T.cpu(), steps.labels.T.cpu(), strict=True):
            yield [str(label) for label in labels[emitted].tolist()]
