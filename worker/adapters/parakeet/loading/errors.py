"""The refusal of a model's file, before it becomes an error of the worker."""


class BadModelFile(Exception):
    """The file is damaged, foreign or hostile; `reason` says where. `open_model_files` translates it."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
