"""Frames from video files, decoded by PyAV (FFmpeg)."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import torch
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from ff3r_model.core.types import Frame
from ff3r_model.frames.prepare import ImageError, check_size, warn_of_panorama
from ff3r_model.frames.source import MAX_PIXELS, NOMINAL_FPS, SourceError
from ff3r_model.frames.video_errors import no_video
from ff3r_model.frames.video_picture import Deinterlacer, upright

log = logging.getLogger(__name__)

LISTS = "it is a list of other files: give one of these"
HDR = {16: "PQ", 18: "HLG"}
"""Transfer characteristics (ITU-T H.273) of high dynamic range, which is shown as it is stored."""
NO_VIDEOS = {"tty": "", "concat": LISTS, "hls": LISTS, "dash": LISTS, "imf": LISTS, "sdp": LISTS}
"""What FFmpeg opens as a video and is none: text, which it shows as terminals do, and lists."""
LAST_FRAMES = 2
"""Frames by which a video may be shorter than its header says before that is told."""


class VideoSource:
    """The frames of a video file, upright, with square pixels, stamped with their presentation times from 0."""

    def __init__(self, path: Path) -> None:
        """Raises SourceError when the file cannot be opened or holds not one frame."""
        self.path, self.name = path, path.name
        self._left_out = 0
        with self._open() as container:
            stream = _pictures(container, path)
            first = next(self._decoded(container, stream), None)
            if first is None:
                raise SourceError(f"{path} opens as a video but not one frame of it can be decoded")
            _check(path, first, stream)
            self.fps, self.count = _rate(stream), _promised(container, stream)

    def __iter__(self) -> Iterator[Frame]:
        with self._open() as container:
            stream = _pictures(container, self.path)
            clock, self._left_out = _Clock(_rate(stream)), 0
            for frame in self._decoded(container, stream):
                picture = upright(frame, stream.sample_aspect_ratio)
                yield Frame(torch.from_numpy(picture), stamp=clock.stamp(frame))
            self._tell(clock, _length(container, stream))

    def _decoded(self, container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
        """The frames that can be decoded whole, deinterlaced."""
        progressive = Deinterlacer()
        for frame in self._whole(container, stream):
            yield from progressive(frame)
        yield from progressive(None)

    def _whole(self, container: InputContainer, stream: VideoStream) -> Iterator[av.VideoFrame]:
        """The frames as they are coded; counts those that are damaged."""
        for packet in _packets(container, stream):
            try:
                frames = stream.decode(packet)
            except av.EOFError:
                continue
            except av.FFmpegError:
                self._left_out += 1
                continue
            self._left_out += sum(frame.is_corrupt for frame in frames)
            for frame in frames:
                frame.time_base = frame.time_base or stream.time_base  # the last ones have none
                if not frame.is_corrupt:
                    yield frame

    def _tell(self, clock: _Clock, length: float | None) -> None:
        """Say what was left out, and what the header promises beyond the last frame."""
        if self._left_out:
            log.warning("%s: left out %d damaged frames; some after them may be smeared", self.path, self._left_out)
        short = length is None or clock.last / 1e9 < length - LAST_FRAMES / self.fps
        if self.count is not None and clock.frames < self.count and (short or self._left_out):
            log.warning("%s promises %d frames; %d could be decoded", self.path, self.count, clock.frames)

    def _open(self) -> InputContainer:
        try:
            container = av.open(
                f"file:{self.path.absolute()}",  # never read as a protocol or a list of files
                options={"protocol_whitelist": "file"},
                metadata_errors="replace",
            )
        except PermissionError as error:
            raise SourceError(f"{self.path} cannot be read: permission denied") from error
        except (av.FFmpegError, OSError, ValueError) as error:
            raise no_video(self.path) from error
        if container.format.name in NO_VIDEOS:
            container.close()
            raise no_video(self.path, NO_VIDEOS[container.format.name])
        return container


class _Clock:
    """Presentation times of frames, in order."""

    def __init__(self, rate: float) -> None:
        self.frames, self.last = 0, -1
        self._first: Fraction | None = None
        self._step = round(1e9 / rate)

    def stamp(self, frame: av.VideoFrame) -> int:
        """Nanoseconds from the first frame. Where a frame has no time, or time stands, the mean rate goes on."""
        ticks, base = frame.pts if frame.pts is not None else frame.dts, frame.time_base
        now = -1
        if ticks is not None and base is not None:
            self._first = ticks * base if self._first is None else self._first
            now = round((ticks * base - self._first) * 10**9)
        self.last = now if now > self.last else self.last + self._step if self.frames else 0
        self.frames += 1
        return self.last


def _check(path: Path, first: av.VideoFrame, stream: VideoStream) -> None:
    """Raise SourceError for pictures that no map can be made of; say what may be wrong with others."""
    height, width = upright(first, stream.sample_aspect_ratio).shape[:2]
    try:
        check_size(height, width)
    except ImageError as error:
        raise SourceError(f"{path}: {error}") from error
    warn_of_panorama(path, height, width)
    if first.color_trc in HDR:
        log.warning("%s has a high dynamic range (%s): its colours are pale", path, HDR[first.color_trc])


def _pictures(container: InputContainer, path: Path) -> VideoStream:
    """The largest video stream, cover pictures aside, ready to be decoded. Raises SourceError where there is none."""
    streams = [stream for stream in container.streams.video if not stream.disposition & Disposition.attached_pic]
    if not streams:
        kinds = sorted({stream.type for stream in container.streams if stream.type != "video"})
        cover = " and a cover picture" if container.streams.video else ""
        raise SourceError(f"{path} holds no video, only {', '.join(kinds) or 'nothing'}{cover}")
    streams = [stream for stream in streams if stream.codec_context is not None]
    if not streams:
        raise SourceError(f"{path}: its video is coded in a way that is not known here; convert it to H.264")
    stream = max(streams, key=lambda stream: stream.codec_context.width * stream.codec_context.height)
    context = stream.codec_context
    if context.width * context.height > MAX_PIXELS:
        raise SourceError(f"{path}: frames of {context.width}x{context.height} pixels are more than {MAX_PIXELS:,}")
    context.options = {"max_pixels": str(MAX_PIXELS)}
    stream.thread_type = "AUTO"
    return stream


def _packets(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet | None]:
    """Every packet up to the end, or to where the file cannot be read on; then None, for what the decoder still has."""
    try:
        yield from (packet for packet in container.demux(stream) if packet.size)
    except av.FFmpegError as error:
        log.debug("reading ends early: %s", error)
    yield None


def _rate(stream: VideoStream) -> float:
    """Mean frames per second by the header; NOMINAL_FPS where that cannot be."""
    rate = float(stream.guessed_rate or stream.average_rate or 0)
    return rate if 0 < rate < 1000 else NOMINAL_FPS


def _length(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds by the header."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return None if container.duration is None else container.duration / av.time_base


def _promised(container: InputContainer, stream: VideoStream) -> int | None:
    """Frames by the header, as counted there or by length and rate: parts that are cut away, and gaps, count in one."""
    length = _length(container, stream)
    counts = [stream.frames, round((length or 0) * _rate(stream))]
    return min((count for count in counts if count > 0), default=None)
