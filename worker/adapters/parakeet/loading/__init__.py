"""Reading a model: configuration, weights and vocabulary of a `.nemo` file or of a folder of safetensors.

Nothing here imports NeMo. Files are treated as hostile: nothing in them is executed and nothing is unpacked.
"""


class BadModelFile(Exception):
    """The file is damaged, foreign or hostile; `reason` says where. `open_model_files` translates it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
