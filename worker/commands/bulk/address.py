"""Addresses of many objects. Standard library only, since the command line reads it for every command."""

from enum import StrEnum

SCHEME = "gs://"


class VideoIdFrom(StrEnum):
    """The part of an object's name that becomes the video id."""

    NAME = "name"
    FOLDER = "folder"
    PATH = "path"


def is_pattern(audio: str) -> bool:
    """Return True for an address of many objects."""
    return audio.startswith(SCHEME) and ("*" in audio or audio.endswith("/"))
