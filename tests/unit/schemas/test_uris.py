import pytest

from schemas.uris import GcsUri


def test_an_address_is_taken_apart_and_put_together_again() -> None:
    uri = GcsUri.parse("gs://my-bucket/a folder/ä#1?.mp3")

    assert uri == GcsUri("my-bucket", "a folder/ä#1?.mp3")
    assert str(uri) == "gs://my-bucket/a folder/ä#1?.mp3"


@pytest.mark.parametrize("bucket", ["abc", "a" * 63, ".".join(["a" * 55] * 3), "a_b", "1.2.example.com"])
def test_a_bucket_s_name_has_up_to_63_characters_between_its_dots(bucket: str) -> None:
    assert GcsUri.parse(f"gs://{bucket}/x").bucket == bucket


def test_a_bucket_root_is_a_prefix() -> None:
    assert str(GcsUri.parse_prefix("gs://my-bucket/").child("x.csv")) == "gs://my-bucket/x.csv"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "my-bucket/x",
        "s3://my-bucket/x",
        "GS://my-bucket/x",
        "gs://my-bucket",
        "gs://my-bucket/",
        "gs://my-bucket/folder/",
        "gs:///x",
        "gs://../x",
        "gs://a..b/x",
        "gs://My-Bucket/x",
        "gs://ab/x",
        f"gs://{'a' * 64}/x",
        f"gs://a.{'b' * 64}/x",
        "gs://my-bucket/../x",
        "gs://my-bucket/a/./x",
        "gs://my-bucket/a\nb",
        "gs://my-bucket/a\x00",
        "gs://my-bucket/" + "ä" * 513,
    ],
)
def test_what_is_no_object_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        GcsUri.parse(text)


@pytest.mark.parametrize(
    "text",
    [
        "gs://my-bucket",
        "gs://my-bucket/folder",
        "gs://my-bucket//",
        "gs://my-bucket//folder/",
        "gs://my-bucket/a//b/",
        "gs://my-bucket/../",
        "gs://my-bucket/a/../../other/",
        "gs://my-bucket/" + "a" * 768 + "/",
    ],
)
def test_what_is_no_folder_inside_a_bucket_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        GcsUri.parse_prefix(text)


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b"])
def test_a_child_cannot_leave_its_prefix(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of an object"):
        GcsUri("my-bucket", "folder/").child(name)


def test_an_object_has_no_children() -> None:
    with pytest.raises(ValueError, match="is an object"):
        GcsUri("my-bucket", "folder").child("x")
