"""A `.nemo` file loaded without a copy: its weights are mapped where they lie in it, and read when they are first used.

NeMo's own way unpacks the file to a temporary folder, fills the network with random numbers, reads the weights beside
it and copies them over: 2.5 GB written once and held twice, in a container whose temporary folder is memory as well.
"""

import tarfile
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import structlog
import torch
from nemo.collections.asr.models import ASRModel
from nemo.core.connectors.save_restore_connector import SaveRestoreConnector
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from worker.adapters.parakeet.loading.checksum_note import WEIGHTS, UnusualFileError, weights_member

log = structlog.get_logger()

_ALIGNED_BYTES = 64
"""What torch gives its own tensors, and `torch.save` its records: at another place the last bits could differ."""


def restore(path: Path) -> Any:
    """The model on the CPU, bit for bit that of NeMo's `restore_from`, which does it where the file cannot be mapped.

    The file must not be written to while the model lives; to replace it by renaming is fine. Raises what NeMo does.
    """
    try:
        weights = mapped_weights(path)
    except (tarfile.TarError, UnusualFileError) as error:
        log.warning("engine.weights_not_mapped", file=str(path), reason=str(error))
        return ASRModel.restore_from(str(path), map_location="cpu")
    return ASRModel.restore_from(str(path), map_location="cpu", save_restore_connector=_GivenWeights(weights))


def mapped_weights(path: Path) -> Mapping[str, Tensor]:
    """The weights by name, in private pages of the file. Raises `tarfile.TarError` or `UnusualFileError`."""
    with tarfile.open(path, "r:") as tar:
        member = weights_member(tar)
        file = tar.extractfile(member)
        if file is None or not zipfile.is_zipfile(file):
            raise UnusualFileError(f"{WEIGHTS} is no zip file")
        file.seek(0)
        index = torch.load(file, map_location="meta", weights_only=True)  # shapes and offsets, no data
    whole = torch.from_file(str(path), shared=False, size=path.stat().st_size, dtype=torch.uint8).untyped_storage()
    return {name: _placed(whole, member.offset_data, tensor) for name, tensor in index.items()}


def _placed(whole: torch.UntypedStorage, start: int, shape: Tensor) -> Tensor:
    storage = shape.untyped_storage()
    offset = storage._checkpoint_offset  # noqa: SLF001  so documented, for tensors loaded without their data
    if offset is None or (start + offset) % _ALIGNED_BYTES:
        raise UnusualFileError(f"weights at byte {offset} of {WEIGHTS} are not aligned")
    data = whole[start + offset : start + offset + storage.nbytes()]
    return torch.empty(0, dtype=shape.dtype).set_(data, shape.storage_offset(), shape.size(), shape.stride())


class _GivenWeights(SaveRestoreConnector):  # type: ignore[misc]
    """Builds the model as NeMo does, but neither unpacks nor copies its weights, nor fills them at random first."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._weights = weights

    def load_config_and_state_dict(self, *args: Any, **options: Any) -> Any:
        """What NeMo's does."""
        with _NoRandomParameters():
            return super().load_config_and_state_dict(*args, **options)

    @staticmethod
    def _filtered_tar_info(tar_path: str, filter_fn: Callable[[str], bool] | None = None) -> list[tarfile.TarInfo]:
        members = SaveRestoreConnector._filtered_tar_info(tar_path, filter_fn)  # noqa: SLF001
        return [member for member in members if PurePosixPath(member.name).name != WEIGHTS]

    def _load_state_dict_from_disk(self, *_: Any, **__: Any) -> Mapping[str, Tensor]:
        return self._weights

    def load_instance_with_state_dict(self, instance: Any, state_dict: Mapping[str, Tensor], strict: bool) -> None:
        """What NeMo's does, but the tensors given become the model's own where they are of its type and layout."""
        types = {name: tensor.dtype for name, tensor in instance.state_dict().items()}
        fitting = {name: tensor.to(types.get(name)).contiguous() for name, tensor in state_dict.items()}
        instance.load_state_dict(fitting, strict=strict, assign=True)
        instance._set_model_restore_state(is_being_restored=False)  # noqa: SLF001


class _NoRandomParameters(TorchFunctionMode):
    """Parameters keep whatever their memory holds instead of random numbers: a strict load replaces every one.

    Buffers and whatever else a model computes for itself are made as ever.
    """

    _RANDOM = frozenset((nn.init.uniform_, nn.init.normal_, nn.init.kaiming_uniform_, Tensor.uniform_, Tensor.normal_))

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Leave a parameter alone; anything else is done."""
        options = kwargs or {}
        target = args[0] if args else options.get("tensor")
        if func in self._RANDOM and isinstance(target, nn.Parameter):
            return target
        return func(*args, **options)
