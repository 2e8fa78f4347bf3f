"""Reading a model: configuration, weights and vocabulary of a `.nemo` file or of a folder of safetensors.

Nothing here imports NeMo. Files are treated as hostile: nothing in them is executed and nothing is unpacked.
"""


class BadModelFile(Exception):
    """The file is damaged, foreign or hostile; the message says where. `open_model_files` translates it."""
