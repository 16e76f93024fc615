"""The fake engine as a kernel that does everything the contract lets it do, at random.

It keeps integers and weak references, as a real engine keeps addresses: memory that the caller
lets go of too early is gone when its operation is performed, and a descriptor that is closed too
early is another file's, or nobody's.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct
import weakref
from collections.abc import Callable
from random import Random
from typing import Any

from fake_engine import FakeEngine

from simulation.operations import ERRORS, Faults, FileState, Op
from uringfile import _engine
from uringfile._native_engine import ffi

# The file position of each open file is this and a number of its own. Nothing here moves it, and
# duplicates share it, so it tells whether a number still means the same open file.
_MARK = 1 << 40

_TRANSIENT = (-errno.EAGAIN, -errno.EBUSY, -errno.ENOMEM, -errno.EINTR)
NO_FD = -100

# What O_DIRECT moves are multiples of this.
_BLOCK = 4096

_ALL = sum(1 << opcode for opcode in ERRORS)
_POSIX = 0xF

_SYNCS = (_engine.FSYNC, _engine.FDATASYNC)


class SimulatedEngine(FakeEngine):
    def __init__(
        self,
        rng: Random,
        faults: Faults,
        fail: Callable[[str], Exception],
        *,
        posix: bool = False,
        entries: int = 4,
        capacity: int = 8,
        opcodes: int = _ALL,
    ) -> None:
        super().__init__(entries, capacity, opcodes & _POSIX if posix else opcodes)
        self.rng = rng
        self.faults = faults
        self.fail = fail
        self.posix = posix
        self.readable = False
        self.ops: dict[int, Op] = {}
        self.files: dict[int, FileState] = {}
        self.lanes: dict[int, list[int]] = {}  # duplicates by the fd that they were made from
        self.staged = 0
        self.marks = 0
        self.direct: set[int] = set()  # marks of what was opened with O_DIRECT
        #: Whether somebody asks for what a power cut leaves.
        self.keeps_durable = False
        #: Whether somebody asks for the addresses of operations.
        self.knows_addresses = False
        self.accepted = self.finished = 0
        self.log: Callable[..., None] = lambda *event: None
        #: Called when the end of the loop waits for completions.
        self.on_waiting: Callable[[], None] = lambda: None
        #: Buffers that calls read into, by their addresses.
        self.exported: dict[range, bytearray] = {}

    def state(self, inode: int) -> FileState:
        found = self.files.get(inode)
        if found is None:
            found = self.files[inode] = FileState()
        return found

    # ---- the contract -----------------------------------------------------------------

    def submit(self, opcode: int, fd: int, addr: Any, length: int, offset: int, token: int) -> int:
        if self.destroyed:
            return -errno.ESHUTDOWN
        if token in self.ops:
            raise self.fail(f"token {token} twice in flight")
        if self.shut:
            return -errno.ESHUTDOWN
        kind = opcode & _engine.KIND
        if not self.opcodes >> kind & 1:
            return -errno.EOPNOTSUPP
        if offset < 0 or length < 0:
            return -errno.EINVAL
        room = self.entries - self.staged
        unreaped = len(self.ops) + len(self.done)
        if room <= 0 or unreaped >= self.capacity:
            return -errno.EAGAIN
        if unreaped > self.staged and self.rng.random() < self.faults.full:
            return -errno.EAGAIN
        mark = inode = 0
        if fd != NO_FD:
            mark, inode = self._identify(fd, kind)
        op = Op(kind, opcode & ~_engine.KIND, fd, None, length, offset, token, mark, inode)
        if isinstance(addr, bytes):
            raise self.fail("memory that is not pinned")
        if addr is not None:
            op.memory = weakref.ref(addr)
            if kind == _engine.OPENAT:
                op.name = ffi.string(addr)
                op.inode = _inode(op.name)
            moves_data = kind in (_engine.READ, _engine.WRITE) and not op.flags & _engine.BATCH
            if self.knows_addresses and moves_data:
                op.address = int(ffi.cast("uintptr_t", addr))
            if self.exported and kind == _engine.READ:
                op.exported = self._exporter(addr)
        if self.posix and fd != NO_FD and self.rng.random() < 0.9:
            op.lane = self._lane(fd)
        op.hangs = kind == _engine.READ and self.rng.random() < self.faults.hang
        self.ops[token] = op
        self.staged += 1
        self.accepted += 1
        self.log("submit", token, kind, length, offset)
        return 0

    def _identify(self, fd: int, kind: int) -> tuple[int, int]:
        try:
            mark = os.lseek(fd, 0, os.SEEK_CUR)
            if mark < _MARK:
                mark = self.mark(fd)
                if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT:
                    self.direct.add(mark)
            return mark, os.fstat(fd).st_ino
        except OSError as error:
            raise self.fail(f"{_engine.OPCODE_NAMES[kind]} of a closed descriptor") from error

    def _exporter(self, addr: Any) -> bytearray | None:
        address = int(ffi.cast("uintptr_t", addr))
        for addresses, buffer in self.exported.items():
            if address in addresses:
                return buffer
        return None

    def mark(self, fd: int) -> int:
        self.marks += 1
        os.lseek(fd, _MARK + self.marks, os.SEEK_SET)
        return _MARK + self.marks

    def open(self, path: str | bytes, flags: int, permissions: int = 0o666) -> int:
        """open(2), on file systems that have no O_DIRECT, too."""
        fd = os.open(path, flags & ~os.O_DIRECT, permissions)
        mark = self.mark(fd)
        if flags & os.O_DIRECT:
            self.direct.add(mark)
        return fd

    def _lane(self, fd: int) -> int:
        lanes = self.lanes.setdefault(fd, [])
        if len(lanes) < 2:
            lanes.append(os.dup(fd))
        return self.rng.choice(lanes)

    def flush(self) -> int:
        if self.destroyed:
            return -errno.ESHUTDOWN
        self.flushes += 1
        faults = self.faults
        if faults.flush and self.rng.random() < faults.flush:
            return self.rng.choice(_TRANSIENT)
        fresh = [op for op in self.ops.values() if not op.flushed]
        self.staged = 0
        for op in self.ops.values():
            op.cancel_seen = op.cancel_asked
        for op in fresh:
            op.flushed = True
            self.check(op)
            if not op.hangs and self.rng.random() < faults.at_once:
                self.perform(op)
                self.finish(op, announce=False)
        return len(self.done)

    def reap(self, drain: bool) -> list[int]:
        if self.destroyed:
            return []
        if drain:
            self.readable = False
        most = self.faults.reap_max
        done, self.done = self.done[:most], self.done[most:]
        if self.done:
            self.readable = True
        self.finished += len(done)
        return [number for pair in done for number in pair]

    def cancel(self, token: int) -> int:
        if self.destroyed:
            return -errno.ESHUTDOWN
        op = self.ops.get(token)
        if op is None:
            return -errno.ENOENT if self.posix else 0
        if self.faults.full and self.rng.random() < self.faults.full:
            return -errno.EAGAIN
        if op.result is not None or self.posix:
            op.answered = self._refusal(op)
        else:
            op.cancel_asked = True
        self.log("cancel", token, op.answered)
        return op.answered

    def _refusal(self, op: Op) -> int:
        if not self.posix:
            return 0  # io_uring learns it later, and says nothing
        if op.result is None and (not op.flushed or self.rng.random() < 0.5):
            op.cancel_asked = True
            return 0
        return -errno.EBUSY if op.lane < 0 else -errno.EALREADY

    def forget_fd(self, fd: int) -> list[int]:
        lanes = self.lanes.pop(fd, [])
        busy = {op.lane for op in self.ops.values()}
        for lane in lanes:
            if lane in busy:
                self.lanes.setdefault(-1, []).append(lane)
        return [lane for lane in lanes if lane not in busy]

    def wait(self, timeout_ms: int) -> int:
        self.on_waiting()
        return self.readable

    def destroy(self) -> None:
        for lanes in self.lanes.values():
            for lane in lanes:
                os.close(lane)
        self.lanes.clear()
        super().destroy()

    def read_nowait(self, fd: int, addr: Any, length: int, offset: int) -> int:
        if self.rng.random() >= self.faults.cached:
            return -errno.EAGAIN
        if length > 1 and self.rng.random() < 0.2:
            length = self.rng.randrange(1, length)  # the rest is not in the page cache
        data = os.pread(fd, length, offset)
        ffi.memmove(addr, data, len(data))
        return len(data)

    def read_many_nowait(
        self, fd: int, memory: Any, room: int, sizes: Any, offsets: Any, n: int
    ) -> int:
        done = 0
        for i in range(n):
            size = sizes[i]
            if (
                not 0 < size <= room - done
                or offsets[i] < 0
                or self.rng.random() >= self.faults.cached
            ):
                return i
            data = os.pread(fd, size, offsets[i])
            if len(data) < size:
                return i
            ffi.memmove(memory + done, data, size)
            done += size
        return n

    # ---- what the kernel does -----------------------------------------------------------

    def check(self, op: Op) -> None:
        """What belongs to the engine until the completion is reaped is still there."""
        if op.fd != NO_FD:
            try:
                mark = os.lseek(op.number, 0, os.SEEK_CUR)
            except OSError:
                mark = -1
            if mark != op.mark:
                what = "was closed" if mark < 0 else "is another file"
                raise self.fail(f"the descriptor of {op} {what}")
        if op.memory is not None and op.memory() is None:
            raise self.fail(f"the memory of {op} was released")
        if op.exported is not None:
            try:
                op.exported.append(0)
            except BufferError:
                return
            raise self.fail(f"the buffer of {op} can be resized")

    def pending_ops(self) -> list[Op]:
        return [op for op in self.ops.values() if op.flushed and not op.hangs]

    def perform(self, op: Op) -> None:
        """Do it; its completion comes when ``finish`` is called."""
        self.check(op)
        if op.cancel_seen and self.rng.random() < 0.7:
            op.result = -errno.ECANCELED if self.rng.random() < 0.9 else -errno.EINTR
            if op.flags & _engine.BATCH:
                for part in self._parts(op):
                    part.result = op.result
                op.result = 0
            return
        if op.flags & _engine.BATCH:
            for part in self._parts(op):
                if op.cancel_seen and self.rng.random() < 0.5:
                    part.result = -errno.ECANCELED
                else:
                    part.result = self._move(op, part.addr, part.len, part.offset)
            op.result = 0
        else:
            address = None if op.memory is None else op.memory()
            op.result = self._move(op, address, op.length, op.offset)
        self.log("perform", op.token, op.shown)

    def _parts(self, op: Op) -> Any:
        return ffi.cast(f"uf_part (*)[{op.length}]", op.memory())[0]

    def _move(self, op: Op, address: Any, length: int, offset: int) -> int:
        """One system call, or less of it than was asked for."""
        rng, faults = self.rng, self.faults
        file = self.state(op.inode)
        error = 0
        if faults.errors and rng.random() < faults.errors:
            error = rng.choice(ERRORS[op.opcode])
            if error not in (errno.EINTR,):
                file.errors += 1
                file.failed_syncs += op.opcode in _SYNCS
                file.failed_cuts += op.opcode == _engine.FTRUNCATE
            if op.opcode == _engine.CLOSE:
                os.close(op.fd)
            if op.opcode != _engine.WRITE or error == errno.EINTR or rng.random() < 0.7:
                return -error
        if (
            op.opcode in (_engine.READ, _engine.WRITE)
            and length > 1
            and (error or (faults.short and rng.random() < faults.short))
        ):
            length = self._less(op, length)
        try:
            result = self._call(op, file, address, length, offset)
        except OSError as refusal:
            file.errors += 1
            return -(refusal.errno or errno.EIO)
        return -error if error else result

    def _less(self, op: Op, length: int) -> int:
        """What O_DIRECT moves are whole blocks; a read of it falls short at the end only."""
        if op.mark not in self.direct:
            return self.rng.randrange(1, length)
        if op.opcode == _engine.READ or length < 2 * _BLOCK:
            return length
        return _BLOCK * self.rng.randrange(1, length // _BLOCK)

    def _call(self, op: Op, file: FileState, address: Any, length: int, offset: int) -> int:
        opcode, fd = op.opcode, op.number
        if opcode == _engine.READ:
            data = os.pread(fd, length, offset)
            ffi.memmove(address, data, len(data))
            return len(data)
        if opcode == _engine.WRITE:
            file.writes += 1
            data = bytes(ffi.buffer(address, length))
            n = os.pwrite(fd, data, offset)
            if self.keeps_durable and fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DSYNC:
                self._endure(fd, file)
            return n
        if opcode in _SYNCS:
            file.synced = file.writes
            if self.keeps_durable:
                self._endure(fd, file)
        elif opcode == _engine.OPENAT:
            return self.open(op.name, op.offset, op.length)
        elif opcode == _engine.CLOSE:
            os.close(fd)
        elif opcode == _engine.STATX:
            _fill_statx(address, os.fstat(fd))
        elif opcode == _engine.FTRUNCATE:
            os.ftruncate(fd, offset)
        elif opcode == _engine.FADVISE:
            os.posix_fadvise(fd, offset, length & 0xFFFFFFFF, length >> 32)
        elif opcode == _engine.FALLOCATE:
            os.posix_fallocate(fd, offset, length)
        else:
            raise NotImplementedError(_engine.OPCODE_NAMES[opcode])
        return 0

    def _endure(self, fd: int, file: FileState) -> None:
        file.durable = bytearray(os.pread(fd, os.fstat(fd).st_size, 0))

    def finish(self, op: Op, *, announce: bool = True) -> None:
        assert op.result is not None
        if op.opcode != _engine.CLOSE:
            self.check(op)
        del self.ops[op.token]
        self.done.append((op.token, op.result))
        if announce:
            self.readable = True
        forgotten = self.lanes.get(-1, [])
        if op.lane in forgotten and all(other.lane != op.lane for other in self.ops.values()):
            forgotten.remove(op.lane)
            os.close(op.lane)


def _inode(path: bytes) -> int:
    try:
        return os.stat(path).st_ino
    except OSError:
        return 0


_STATX = struct.Struct("=4xI8xIIIHxxQQQ8x" + "qIxxxx" * 4 + "IIII")


def _fill_statx(address: Any, status: os.stat_result) -> None:
    device = os.major(status.st_dev), os.minor(status.st_dev)
    mode = stat.S_IFREG | stat.S_IMODE(status.st_mode)
    numbers = (status.st_blksize, status.st_nlink, status.st_uid, status.st_gid, mode)
    sizes = status.st_ino, status.st_size, status.st_blocks
    ffi.memmove(address, _STATX.pack(*numbers, *sizes, *(0,) * 8, 0, 0, *device), _STATX.size)
