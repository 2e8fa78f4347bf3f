"""Models in transformers' format, made by transformers itself, and every way in which such a folder is refused."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.engines.safetensors_models import random_model, write_tokenizer
from worker.adapters.parakeet.loading.model_files import open_model_files
from worker.adapters.parakeet.loading.safetensors_folder import mel_bands
from worker.adapters.parakeet.network.config import UnsupportedModel
from worker.adapters.parakeet.network.transcriber import Transcriber
from worker.adapters.parakeet.network.weights import WrongWeights
from worker.embedded.samples import tiny_model
from worker.errors import ModelLoadingError

pytestmark = [pytest.mark.timeout(300), pytest.mark.filterwarnings("ignore")]  # transformers' are not ours to mend


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("transformers")
    random_model(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "model"))


def edited(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def test_weights_are_transformers_in_every_bit_by_nemos_names(saved: Path) -> None:
    theirs = load_file(saved / "model.safetensors")

    ours = open_model_files(saved).weights

    renamed = {
        "encoder.pre_encode.conv.5.weight": "encoder.subsampling.layers.5.weight",
        "encoder.pre_encode.out.bias": "encoder.subsampling.linear.bias",
        "encoder.layers.1.self_attn.linear_q.weight": "encoder.layers.1.self_attn.q_proj.weight",
        "encoder.layers.1.self_attn.linear_pos.weight": "encoder.layers.1.self_attn.relative_k_proj.weight",
        "encoder.layers.1.self_attn.pos_bias_u": "encoder.layers.1.self_attn.bias_u",
        "encoder.layers.0.conv.batch_norm.running_var": "encoder.layers.0.conv.norm.running_var",
        "decoder.prediction.dec_rnn.lstm.weight_hh_l1": "decoder.lstm.weight_hh_l1",
        "decoder.prediction.embed.weight": "decoder.embedding.weight",
        "joint.pred.weight": "decoder.decoder_projector.weight",
        "joint.enc.weight": "encoder_projector.weight",
        "joint.joint_net.2.bias": "joint.head.bias",
    }
    assert all(torch.equal(ours[nemo], theirs[name]) for nemo, name in renamed.items())
    assert len(ours) == len(theirs) + len(("window", "bands"))


def test_weights_are_pages_of_the_file(folder: Path) -> None:
    weights = open_model_files(folder).weights

    maps = [line.split()[1] for line in Path("/proc/self/maps").read_text().splitlines() if str(folder) in line]
    assert maps == ["rw-p"]
    assert weights["joint.enc.weight"].shape == (32, 64)


def test_a_model_in_several_files_is_read_by_its_index(folder: Path) -> None:
    theirs = load_file(folder / "model.safetensors")
    names = sorted(theirs)
    places = {name: f"model-{number % 2 + 1:05}-of-00002.safetensors" for number, name in enumerate(names)}
    for file in set(places.values()):
        save_file({name: theirs[name] for name in names if places[name] == file}, folder / file)
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))

    ours = open_model_files(folder).weights

    assert torch.equal(ours["joint.enc.weight"], theirs["encoder_projector.weight"])


def test_sizes_are_read_from_the_configuration(saved: Path) -> None:
    config = open_model_files(saved).config

    assert (config.n_layers, config.d_model, config.n_heads, config.d_feed_forward) == (2, 64, 4, 128)
    assert (config.d_prediction, config.n_prediction_layers, config.d_joint) == (32, 2, 32)
    assert (config.vocabulary_size, config.durations, config.xscaling) == (256, (0, 1, 2, 3, 4), False)
    assert (config.window_samples, config.hop_samples, config.n_fft, config.n_mels) == (400, 160, 512, 80)


def test_pieces_are_read_from_either_kind_of_tokenizer(folder: Path) -> None:
    bpe = open_model_files(folder).pieces
    unigram = [["<unk>", 0.0], *([piece, -1.0] for piece in bpe[1:])]
    edited(folder / "tokenizer.json", lambda content: content.update(model={"type": "Unigram", "vocab": unigram}))

    assert bpe[:2] == ("▁w0", "▁w1")
    assert open_model_files(folder).pieces == ("<unk>", *bpe[1:])


def test_mel_bands_are_those_that_nemo_and_transformers_use(saved: Path) -> None:
    from transformers import ParakeetFeatureExtractor  # noqa: PLC0415  # seconds

    ours = mel_bands(n_mels=80, n_fft=512)

    assert torch.equal(ours, open_model_files(tiny_model()).weights["preprocessor.featurizer.fb"])
    theirs = ParakeetFeatureExtractor.from_pretrained(saved).mel_filters
    assert torch.allclose(ours[0], theirs, rtol=1e-5, atol=1e-9)


def cut_short(folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:100_000])


def declare(n_bytes: int) -> Callable[[Path], None]:
    return lambda folder: _prepend(folder / "model.safetensors", n_bytes)


def _prepend(file: Path, n_bytes: int) -> None:
    file.write_bytes(n_bytes.to_bytes(8, "little") + b'{"a": ' + file.read_bytes()[8:])


def with_weight(name: str, tensor: torch.Tensor) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        file = folder / "model.safetensors"
        save_file({**load_file(file), name: tensor}, file)

    return change


def index_to(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": name}}))


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "no configuration": (lambda folder: (folder / "config.json").unlink(), "No such file"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors|No such file"),
    "no tokenizer": (lambda folder: (folder / "tokenizer.json").unlink(), "No such file"),
    "no JSON": (lambda folder: (folder / "config.json").write_text("{"), "config.json is no JSON"),
    "nested JSON": (lambda folder: (folder / "config.json").write_text("[" * 100_000), "config.json is no JSON"),
    "a list": (lambda folder: (folder / "config.json").write_text("[]"), "config.json holds no object"),
    "weights cut short": (cut_short, "damaged or no safetensors"),
    "a header of a terabyte": (declare(2**40), "damaged or no safetensors"),
    "another header": (declare(100), "damaged or no safetensors"),
    "a pickle for weights": (
        lambda folder: torch.save({"a": torch.zeros(1)}, folder / "model.safetensors"),
        "damaged or no safetensors",
    ),
    "another shape": (
        with_weight("encoder_projector.weight", torch.zeros(32, 32)),
        r"joint.enc.weight is of shape \(32, 32\); the configuration asks for \(32, 64\)",
    ),
    "a weight too many": (with_weight("encoder.layers.2.norm_out.bias", torch.zeros(64)), "does not ask for"),
    "a climbing part": (index_to("../../etc/x.safetensors"), "no safetensors file of its folder"),
    "a part of another kind": (index_to("pytorch_model.bin"), "no safetensors file of its folder"),
    "a vocabulary too small": (lambda folder: write_tokenizer(folder, ["a"]), "no piece 2 of 256"),
}


@pytest.mark.parametrize(("change", "reason"), BAD.values(), ids=BAD.keys())
def test_a_folder_that_is_damaged_foreign_or_hostile_is_refused(
    folder: Path, change: Callable[[Path], object], reason: str
) -> None:
    change(folder)

    with pytest.raises((ModelLoadingError, WrongWeights), match=reason):
        Transcriber(open_model_files(folder), torch.device("cpu"), torch.float32)


CONFIGURATIONS: list[tuple[str, Any, str]] = [
    ("model_type", "parakeet_ctc", "model_type is 'parakeet_ctc'"),
    ("hidden_act", "gelu", "hidden_act is 'gelu'"),
    ("blank_token_id", 0, "blank_token_id is 0"),
    ("durations", [], "durations"),
    ("encoder_config.subsampling_conv_stride", 3, "subsampling_conv_stride is 3"),
    ("encoder_config.convolution_bias", True, "convolution_bias is True"),
    ("encoder_config.intermediate_size", 100, "intermediate_size is 100"),
    ("encoder_config.num_hidden_layers", "24", "n_layers is '24'"),
]


@pytest.mark.parametrize(("option", "value", "reason"), CONFIGURATIONS)
def test_another_architecture_is_refused_with_its_option(folder: Path, option: str, value: Any, reason: str) -> None:
    def change(content: dict[str, Any]) -> None:
        *parts, name = option.split(".")
        for part in parts:
            content = content[part]
        content[name] = value

    edited(folder / "config.json", change)

    with pytest.raises(UnsupportedModel, match=reason):
        open_model_files(folder)
