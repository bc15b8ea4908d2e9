"""Everything that can be wrong with a clip or a bundle, raised where it is known.

DetectError
├── MediaError                  what was uploaded; the service maps each to one problem type
│   ├── UnsupportedMedia        not a picture or a video in a container we accept
│   ├── MalformedCrops          faces that a client says it has cut, but not as the model wants them
│   └── UndecodableMedia        a container we accept, but nothing can be decoded from it
│       ├── NoVideoStream       audio only, or no stream at all
│       ├── NoFrames            a video stream without a single decodable frame
│       ├── PictureTooSmall     fewer pixels a side than a face needs
│       └── PictureTooLarge     more pixels than the limit
├── BundleError
│   ├── BundleMissing           no such directory, or no manifest in it
│   ├── BundleCorrupt           a digest, a schema or a graph signature does not hold
│   └── BundleUntrained         random weights, and nobody allowed to serve them
└── FaceModelError              the face detector's file is missing, foreign or not licensed
"""


class DetectError(Exception):
    """Base of all errors that this project raises on purpose."""


class MediaError(DetectError):
    """The clip is at fault. `problem` is the stable last part of the problem type's URI."""

    problem = "media-error"


class UnsupportedMedia(MediaError):
    """The bytes are not a picture or a video in a container we accept."""

    problem = "unsupported-media"


class MalformedCrops(MediaError):
    """What was sent as faces cut out of a clip are none, or none that the model can judge."""

    problem = "malformed-crops"


class UndecodableMedia(MediaError):
    """The container is one we accept, but its content can not be decoded."""

    problem = "undecodable-media"


class NoVideoStream(UndecodableMedia):
    """The file carries no video stream."""

    problem = "no-video-stream"


class NoFrames(UndecodableMedia):
    """The video stream holds no decodable frame."""

    problem = "no-frames"


class PictureTooSmall(UndecodableMedia):
    """The picture has too few pixels for any face."""

    problem = "picture-too-small"


class PictureTooLarge(UndecodableMedia):
    """The picture has more pixels than the limit allows."""

    problem = "picture-too-large"


class BundleError(DetectError):
    """A model bundle can not be used."""


class BundleMissing(BundleError):
    """There is no bundle at that place."""


class BundleCorrupt(BundleError):
    """The bundle's files are not what its manifest promises."""


class BundleUntrained(BundleError):
    """The bundle holds untrained weights and serving them was not allowed."""


class FaceModelError(DetectError):
    """The face detector can not be loaded, or its licence was not accepted."""
