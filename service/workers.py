"""A pool of decoder processes: a clip that crashes, hangs or bloats its decoder costs only itself.

Each child opens the face detector once and then takes one clip at a time. It is killed (never asked)
when it is late, when the client has gone, or when it sends anything unexpected, and a fresh one
takes its place; after a number of clips it is replaced in any case, since decoders leak.
"""

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace

from pipeline.credentials import Credentials
from pipeline.errors import FaceModelError, MediaError, UndecodableMedia
from pipeline.prepared import Outline
from service.batcher import Expired
from service.checker import CHECK_S
from service.child import Child, Crashed, DecoderConfig, NotAtWork, Reason
from service.job import Job, Listener, Told
from service.sandbox import Confinement, NotConfined
from service.tracing import request_span

COMMAND = (sys.executable, "-P", "-m", "service.decoder")
"""-P: nothing is imported from where the server happens to have been started."""
LONGEST_PAUSE_S = 30.0
"""Between attempts to start a child where none can be started."""

log = logging.getLogger(__name__)


class DecoderPool:
    """`size` children, each at work on one clip at most.

    decode_timeout_s: wall-clock seconds for one clip, after which its child is killed. clips: after
    so many a child is replaced. on_restart: told why a child had to be replaced.
    """

    def __init__(
        self,
        config: DecoderConfig,
        *,
        size: int,
        clips: int,
        decode_timeout_s: float,
        on_restart: Callable[[Reason], None] = lambda _: None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._config, self._command = config, command
        self._size, self._clips, self._decode_timeout_s = size, clips, decode_timeout_s
        self._on_restart = on_restart
        self._idle: asyncio.Queue[Child] = asyncio.Queue()
        self._waiting: list[float] = []
        self._children: set[Child] = set()
        self._keepers: list[asyncio.Task[None]] = []
        self._failed_starts = 0
        self._told_of_library = False
        self.confinement = Confinement((), {})
        """Of the children that were started first."""

    @property
    def alive(self) -> int:
        """Children that run."""
        return sum(child.alive for child in self._children)

    @property
    def healthy(self) -> bool:
        """False when no child runs and none can be started."""
        return self.alive > 0 or self._failed_starts == 0

    def oldest_s(self, now: float) -> float:
        """Seconds that the clip has waited which waits longest for a child; 0 while none does.

        now: in the event loop's time.
        """
        return now - min(self._waiting, default=now)

    async def start(self) -> None:
        """Start all children. Raises FaceModelError when the detector can not be opened, NotConfined when
        what the settings require of the kernel can not be had."""
        starting = [Child.spawn(self._config, self._command) for _ in range(self._size)]
        started = await asyncio.gather(*starting, return_exceptions=True)
        children = [c for c in started if isinstance(c, Child)]
        for problem in (c for c in started if isinstance(c, BaseException)):
            for child in children:
                child.kill("start")
            if isinstance(problem, Crashed):
                raise FaceModelError(f"{problem}; its message is above") from problem
            raise problem
        self.confinement = children[0].confinement
        missed = self.confinement.lacking and self._config.sandbox != "off"
        level = logging.WARNING if missed else logging.INFO
        log.log(level, "decoders confined", extra=asdict(self.confinement))
        self._keepers = [asyncio.create_task(self._keep(child)) for child in children]
        await asyncio.sleep(0)

    async def stop(self) -> None:
        """Kill all children and wait until they are gone."""
        for keeper in self._keepers:
            keeper.cancel()
        await asyncio.gather(*self._keepers, return_exceptions=True)

    async def prepare(
        self,
        job: Job,
        listener: Listener,
        *,
        deadline: float,
        look_until: float | None = None,
        taken: Callable[[], None] = lambda: None,
    ) -> tuple[Outline, float]:
        """The clip as it was seen in the end, and the seconds that it waited for a free child.

        listener: is told what was cut as soon as it was; while it is busy the child waits. look_until: when
        looking has to end, deadline: when all has, in the event loop's time. taken: called when a child is
        given the clip. Raises MediaError for what is
        wrong with the clip, also when it crashes its decoder, Expired when it is not done by `deadline` or
        takes too long, and what the listener raises.
        """
        loop = asyncio.get_running_loop()
        submitted, request = loop.time(), request_span.get()
        while True:
            with request.start("queue"):
                child = await self._next_idle(submitted, deadline)
            taken()
            now = loop.time()
            budget_s = None if look_until is None else max(0.0, look_until - now)
            try:
                given = replace(job, budget_s=budget_s, cpu_s=self._cpu_s(job))
                with request.start("look") as span:
                    outline = await self._decode(child, given, listener, deadline)
                    span.note(**{f"{name}_s": ms / 1000 for name, ms in outline.timing_ms.items()})
                    span.note(bursts=outline.coverage.bursts, faces=outline.faces_seen)
                return outline, now - submitted
            except NotAtWork:
                child.kill("crash")

    async def _next_idle(self, submitted: float, deadline: float) -> Child:
        self._waiting.append(submitted)
        try:
            async with asyncio.timeout_at(deadline):
                while not (child := await self._idle.get()).alive:
                    pass
                return child
        except TimeoutError as e:
            raise Expired("no decoder became free in time") from e
        finally:
            self._waiting.remove(submitted)

    async def _decode(self, child: Child, job: Job, listener: Listener, deadline: float) -> Outline:
        loop = asyncio.get_running_loop()
        if deadline <= loop.time():
            self._give_back(child)
            raise Expired("the deadline passed before the clip was decoded")
        limit = loop.time() + self._decode_timeout_s

        async def told(what: Told) -> None:
            """Time in which a child waits for its listener is not its own."""
            nonlocal limit
            before = loop.time()
            patience.reschedule(deadline)
            await listener(what)
            limit += loop.time() - before
            patience.reschedule(min(limit, deadline))

        try:
            async with asyncio.timeout_at(min(limit, deadline)) as patience:
                outline = await child.ask(job, told)
        except MediaError:
            self._give_back(child)
            raise
        except NotAtWork:
            raise
        except TimeoutError as e:
            child.kill("timeout")
            if limit <= deadline:
                raise Expired(f"decoding takes longer than {self._decode_timeout_s:g} s") from e
            raise Expired("the deadline passed while the clip was decoded") from e
        except Crashed as e:
            child.kill(e.reason)
            if await child.ended() == "cpu":
                raise Expired(f"decoding takes more than {job.cpu_s:g} s of CPU time") from e
            log.warning("a decoder was lost", extra={"why": str(e)})
            raise UndecodableMedia("the decoder crashed on this clip") from e
        except BaseException:  # the request was cancelled, or its listener has failed
            child.kill("cancelled")
            raise
        if outline.media.c2pa == "present":
            outline = replace(outline, credentials=await self._credentials(child, deadline))
        self._give_back(child)
        return outline

    async def _credentials(self, child: Child, deadline: float) -> Credentials:
        """What the child finds in the clip's manifest. A child that is lost over it costs no verdict: that is
        there by now, and half of the time that is left is kept for it."""
        loop = asyncio.get_running_loop()
        patience_s = min(CHECK_S, self._decode_timeout_s, (deadline - loop.time()) / 2)
        try:
            async with asyncio.timeout(patience_s):
                found = await child.credentials()
        except TimeoutError:
            child.kill("timeout")
            log.warning("a manifest took too long", extra={"limit_s": round(patience_s, 3)})
            return Credentials(unchecked="timeout")
        except Crashed as e:
            child.kill(e.reason)
            log.warning("a decoder was lost over a manifest", extra={"why": str(e)})
            return Credentials(unchecked="timeout" if await child.ended() == "cpu" else "failed")
        except BaseException:
            child.kill("cancelled")
            raise
        if found.unchecked == "no_library" and not self._told_of_library:
            self._told_of_library = True
            log.warning("manifests are not looked into: the C2PA library is missing or does not load")
        return found

    def _cpu_s(self, job: Job) -> float:
        """CPU seconds that its threads can take in the clip's time; libav runs none of its own for one."""
        return self._decode_timeout_s * (job.threads + (job.threads > 1))

    def _give_back(self, child: Child) -> None:
        if child.clips >= self._clips:
            child.kill("recycled")
        if child.alive:
            self._idle.put_nowait(child)

    async def _keep(self, child: Child) -> None:
        """Keep one place in the pool filled for as long as the pool runs."""
        try:
            while True:
                self._children.add(child)
                self._idle.put_nowait(child)
                reason = await child.wait()
                self._children.discard(child)
                self._on_restart(reason)
                child = await self._replace()
        finally:
            child.kill("cancelled")
            await child.wait()
            self._children.discard(child)

    async def _replace(self) -> Child:
        """A new child; while none can be had, pauses grow and readiness shows it."""
        pause = 0.5
        while True:
            try:
                child = await Child.spawn(self._config, self._command)
            except (Crashed, FaceModelError, NotConfined, OSError) as e:
                self._failed_starts += 1
                log.error("a decoder could not be started", extra={"why": str(e)})  # noqa: TRY400
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
            else:
                self._failed_starts = 0
                return child
