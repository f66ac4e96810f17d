"""A camera that does what it is told: an RTSP server in a thread of its own.

with ScriptedCamera(Scene(640, 360, plan=(40, 200, 90))) as camera:
    av.open(camera.url, options={"rtsp_transport": "tcp"})
    camera.fault = "stall_after:1"
"""

import asyncio
import socket
import threading
from collections.abc import Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import quote

from tests.camera.auth import Algorithm, Guard, Scheme
from tests.camera.clip import Clip, Scene, encode
from tests.camera.conversation import Conversation
from tests.camera.faults import NO_FAULT, Door, Fault, parse_fault
from tests.camera.line import Line
from tests.camera.script import Act, Asked, Script, Sent

_T = TypeVar("_T")
_CALL_S = 30.0  # nothing that is asked of the loop takes long; a machine may be loaded


class ScriptedCamera:
    """Each client sees the clip from its start; with `live` all share one clock, and join wherever it is.

    With a username it asks for credentials (`auth`; `has_qop` adds qop="auth" to Digest). The session timeout
    is kept only if one is given. A fault is a name as in "stall_after:3", a Fault, or None; it can be set at
    any time and holds for running clients too. The port stays the camera's own while it is stopped.
    """

    def __init__(
        self,
        scene_or_clip: Scene | Clip,
        *,
        path: str = "demo",
        username: str | None = None,
        password: str | None = None,
        auth: Scheme | None = "digest",
        has_qop: bool = False,
        host: str = "127.0.0.1",
        port: int = 0,
        fault: str | Fault | None = None,
        loop: bool = True,
        live: bool = False,
        session_timeout_s: float | None = None,
    ) -> None:
        self.clip = encode(scene_or_clip) if isinstance(scene_or_clip, Scene) else scene_or_clip
        self.host = host
        self._credentials = (username or "", password or "")
        self._script = Script(
            act=_act(self.clip, fault),
            path=path,
            guard=Guard(*self._credentials, auth or "digest", has_qop=has_qop),
            is_guarded=username is not None and auth is not None,
            is_looping=loop,
            is_live=live,
            session_timeout_s=session_timeout_s,
        )
        self._conversations: dict[Conversation, asyncio.Task[None]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._is_started = False
        self._event_loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name=f"camera-{path}", daemon=True)
        self._claim = _bound(host, port)
        self.port: int = self._claim.getsockname()[1]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Without credentials."""
        return f"rtsp://{self.host}:{self.port}/{self._script.path}"

    @property
    def url_with_credentials(self) -> str:
        """Percent-encoded."""
        username, password = (quote(text, safe="") for text in self._credentials)
        return f"rtsp://{username}:{password}@{self.host}:{self.port}/{self._script.path}"

    def ask_for(
        self,
        username: str | None,
        password: str = "",
        auth: Scheme = "digest",
        *,
        has_qop: bool = False,
        algorithm: Algorithm = "MD5",
        path: str = "demo",
    ) -> None:
        """From now on these, of whoever comes: one camera for a table of many. None: no credentials."""
        self._script.guard = Guard(username or "", password, auth, has_qop=has_qop, algorithm=algorithm)
        self._script.is_guarded = username is not None
        self._script.path = path

    @property
    def requests(self) -> list[Asked]:
        """In the order in which they came, of all clients since the camera was made."""
        return list(self._script.requests)

    @property
    def sent(self) -> list[Sent]:
        """The pictures that were sent so far, in that order, to all clients since the camera was made."""
        return list(self._script.sent)

    @property
    def clients(self) -> int:
        """Connections that are open now."""
        return len(self._conversations)

    @property
    def connections(self) -> int:
        """All that ever were."""
        return self._script.connections

    @property
    def teardowns(self) -> int:
        return self._script.teardowns

    @property
    def fault(self) -> Fault | None:
        fault = self._script.act.fault
        return None if fault is NO_FAULT else fault

    @fault.setter
    def fault(self, fault: str | Fault | None) -> None:
        act = _act(self.clip, fault)
        if self._thread.is_alive():
            self._call(self._change(act))
        else:
            self._script.act = act

    def start(self) -> None:
        """Also after stop(): on the same port, a camera that has rebooted."""
        if not self._thread.is_alive():
            self._thread.start()
        self._is_started = True
        self._call(self._listen_or_not())

    def stop(self) -> None:
        """The port is closed and every client dropped."""
        self._is_started = False
        self._call(self._listen_or_not())
        self.hang_up()

    def hang_up(self) -> None:
        """Drops every client; the port stays open."""
        self._call(self._drop_all())

    def close(self) -> None:
        """For good."""
        if self._thread.is_alive():
            self.stop()
            self._event_loop.call_soon_threadsafe(self._event_loop.stop)
            self._thread.join(_CALL_S)
        elif not self._event_loop.is_closed():
            self._event_loop.close()
        self._claim.close()

    def _run(self) -> None:
        asyncio.set_event_loop(self._event_loop)
        self._event_loop.run_forever()
        self._event_loop.close()

    def _call(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._event_loop).result(_CALL_S)

    async def _change(self, act: Act) -> None:
        self._script.change(act)
        await self._listen_or_not()

    async def _listen_or_not(self) -> None:
        is_open = self._is_started and self._script.act.fault.door is not Door.REFUSES
        if is_open and self._listening is None:
            self._script.began_at_s = self._script.began_at_s or self._event_loop.time()
            listener = _bound(self.host, self.port)
            listener.listen(256)
            self._listening = asyncio.create_task(self._listen(listener))
        elif not is_open and self._listening is not None:
            self._listening.cancel()
            await asyncio.wait([self._listening])
            self._listening = None

    async def _listen(self, listener: socket.socket) -> None:
        listener.setblocking(False)
        with listener:
            while True:
                connection, _ = await self._event_loop.sock_accept(listener)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._script.connections += 1
                conversation = Conversation(self._script, Line(connection), self._script.connections)
                self._conversations[conversation] = asyncio.create_task(self._hold(conversation))

    async def _hold(self, conversation: Conversation) -> None:
        await conversation.hold()
        del self._conversations[conversation]

    async def _drop_all(self) -> None:
        """Returns when all are gone."""
        for conversation in self._conversations:
            conversation.hang_up()
        await asyncio.gather(*self._conversations.values())


def _act(clip: Clip, fault: str | Fault | None) -> Act:
    """Encodes what the fault needs, in the caller's thread."""
    chosen = parse_fault(fault) if isinstance(fault, str) else fault or NO_FAULT
    return Act(chosen, clip, encode(chosen.next_scene(clip.scene)) if chosen.next_scene else None)


def _bound(host: str, port: int) -> socket.socket:
    """The first such socket only holds the port; with SO_REUSEADDR on both Linux lets a second one listen."""
    bound = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    bound.bind((host, port))
    return bound
