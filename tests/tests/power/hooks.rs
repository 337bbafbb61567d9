//! This process's file system calls, recorded and made to fail. The functions of the C library by which SQLite and Rust's
//! standard library change files are defined here once more: the linker takes these. Each does the real thing by a system
//! call, unless a fault is due, and notes it when the file is in a folder that is recorded.
//!
//! fsync of a recorded file only takes a note: what it means is in the model, and the tests are quick.
#![allow(unsafe_code, unreachable_pub, reason = "stands in for functions of the C library")]

use libc::{c_char, c_int, c_void, mode_t, off_t, size_t, ssize_t};
use parking_lot::Mutex;
use spindle_tests::disk::Op;
use std::collections::BTreeMap;
use std::ffi::{CStr, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// When calls that change files fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// The first call that fails, from 0.
    pub(crate) at: u64,
    /// Whether all after it fail too, until [`Recording::heal`].
    pub(crate) lasting: bool,
    /// What the call says: an `errno`.
    pub(crate) errno: c_int,
}

#[derive(Debug)]
struct Recorder {
    id: u64,
    root: PathBuf,
    ops: Vec<Op>,
    names: BTreeMap<PathBuf, u64>,
    files: u64,
    calls: u64,
    fault: Option<Fault>,
    failed: u64,
    violations: Vec<String>,
}

#[derive(Debug, Clone)]
struct Handle {
    recorder: u64,
    path: PathBuf,
    /// `None` for a folder.
    file: Option<u64>,
    /// A sync of this handle failed.
    spent: bool,
}

struct State {
    next_id: u64,
    recorders: Vec<Recorder>,
    handles: BTreeMap<c_int, Handle>,
}

static STATE: Mutex<State> =
    Mutex::new(State { next_id: 0, recorders: Vec::new(), handles: BTreeMap::new() });

/// A folder whose files are recorded for as long as this lives.
#[derive(Debug)]
pub(crate) struct Recording {
    id: u64,
    folder: TempDir,
}

impl Recording {
    /// An empty folder.
    pub(crate) fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let mut state = STATE.lock();
        let id = state.next_id;
        state.next_id += 1;
        state.recorders.push(Recorder {
            id,
            root,
            ops: Vec::new(),
            names: BTreeMap::new(),
            files: 0,
            calls: 0,
            fault: None,
            failed: 0,
            violations: Vec::new(),
        });
        Self { id, folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn with<T>(&self, work: impl FnOnce(&mut Recorder) -> T) -> T {
        let mut state = STATE.lock();
        work(state.recorders.iter_mut().find(|recorder| recorder.id == self.id).unwrap())
    }

    /// Operations so far.
    pub(crate) fn len(&self) -> usize {
        self.with(|recorder| recorder.ops.len())
    }

    /// All operations.
    pub(crate) fn ops(&self) -> Vec<Op> {
        self.with(|recorder| recorder.ops.clone())
    }

    /// Calls so far that a fault can hit.
    pub(crate) fn calls(&self) -> u64 {
        self.with(|recorder| recorder.calls)
    }

    /// Calls that failed so far.
    pub(crate) fn failed(&self) -> u64 {
        self.with(|recorder| recorder.failed)
    }

    pub(crate) fn set_fault(&self, fault: Fault) {
        self.with(|recorder| recorder.fault = Some(fault));
    }

    /// The disk is well again.
    pub(crate) fn heal(&self) {
        self.with(|recorder| recorder.fault = None);
    }

    /// Writes and syncs by a handle whose sync had failed.
    pub(crate) fn violations(&self) -> Vec<String> {
        self.with(|recorder| recorder.violations.clone())
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        let mut state = STATE.lock();
        state.recorders.retain(|recorder| recorder.id != self.id);
        let id = self.id;
        state.handles.retain(|_, handle| handle.recorder != id);
    }
}

impl Recorder {
    /// Counts a call; whether it is to fail.
    fn fails(&mut self) -> Option<c_int> {
        let call = self.calls;
        self.calls += 1;
        let fault = self.fault?;
        let hit = if fault.lasting { call >= fault.at } else { call == fault.at };
        self.failed += u64::from(hit);
        hit.then_some(fault.errno)
    }
}

impl State {
    fn recorder(&mut self, id: u64) -> Option<&mut Recorder> {
        self.recorders.iter_mut().find(|recorder| recorder.id == id)
    }

    /// The recorder of a path, and the path within its folder. What SQLite keeps in shared memory, and the lock, which is
    /// never written, are no matter of the disk's.
    fn find(&mut self, path: &Path) -> Option<(&mut Recorder, PathBuf)> {
        let name = path.file_name()?.to_str()?;
        if name.ends_with("-shm") || name == "lock" {
            return None;
        }
        self.recorders.iter_mut().find_map(|recorder| {
            let inner = path.strip_prefix(&recorder.root).ok()?.to_owned();
            Some((recorder, inner))
        })
    }

    fn handle(&mut self, fd: c_int) -> Option<Handle> {
        self.handles.get(&fd).cloned()
    }
}

fn errno(value: c_int) -> c_int {
    // SAFETY: the location of this thread's errno is always valid.
    unsafe { *libc::__errno_location() = value };
    -1
}

/// # Safety
/// `path` is a C string.
unsafe fn path_of(path: *const c_char) -> PathBuf {
    // SAFETY: the caller's promise.
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes();
    PathBuf::from(OsStr::from_bytes(bytes))
}

fn is_folder(fd: c_int) -> bool {
    // SAFETY: all bytes zero are a valid `stat`, and the kernel writes one.
    unsafe {
        let mut stat: libc::stat = std::mem::zeroed();
        libc::fstat(fd, &raw mut stat) == 0 && stat.st_mode & libc::S_IFMT == libc::S_IFDIR
    }
}

/// The C library's `open`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the caller's promise.
    let name = unsafe { path_of(path) };
    let mut state = STATE.lock();
    let makes = flags & libc::O_CREAT != 0;
    let new = state.find(&name).is_some_and(|(recorder, path)| !recorder.names.contains_key(&path));
    if makes
        && new
        && let Some((recorder, _)) = state.find(&name)
        && let Some(error) = recorder.fails()
    {
        return errno(error);
    }
    // SAFETY: the caller's arguments, passed on.
    let fd =
        unsafe { libc::syscall(libc::SYS_openat, libc::AT_FDCWD, path, flags, c_int::from(mode as u16)) };
    let fd = fd as c_int;
    if fd < 0 {
        return fd;
    }
    state.handles.remove(&fd);
    let folder = is_folder(fd);
    if let Some((recorder, path)) = state.find(&name) {
        let id = recorder.id;
        let file = if folder {
            None
        } else if let Some(file) = recorder.names.get(&path) {
            Some(*file)
        } else {
            recorder.files += 1;
            recorder.names.insert(path.clone(), recorder.files);
            recorder.ops.push(Op::Create { path: path.clone(), file: recorder.files });
            Some(recorder.files)
        };
        if let Some(file) = file
            && flags & libc::O_TRUNC != 0
        {
            recorder.ops.push(Op::Truncate { file, len: 0 });
        }
        state.handles.insert(fd, Handle { recorder: id, path, file, spent: false });
    }
    fd
}

/// The C library's `open64`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn open64(path: *const c_char, flags: c_int, mode: mode_t) -> c_int {
    // SAFETY: the same function on 64 bits.
    unsafe { open(path, flags, mode) }
}

/// The C library's `close`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn close(fd: c_int) -> c_int {
    STATE.lock().handles.remove(&fd);
    // SAFETY: the caller's argument, passed on.
    unsafe { libc::syscall(libc::SYS_close, fd) as c_int }
}

/// Writes, whole or, with a fault, its first half.
///
/// # Safety
/// `data` has `len` bytes.
unsafe fn write_at(fd: c_int, data: *const c_void, len: size_t, at: Option<off_t>) -> ssize_t {
    let real = |len: size_t| {
        // SAFETY: the caller's promise; never more than its `len`.
        let written = unsafe {
            match at {
                Some(at) => libc::syscall(libc::SYS_pwrite64, fd, data, len, at),
                None => libc::syscall(libc::SYS_write, fd, data, len),
            }
        };
        written as ssize_t
    };
    let mut state = STATE.lock();
    let Some(handle) = state.handle(fd) else {
        drop(state);
        return real(len);
    };
    let Some(file) = handle.file else { return real(len) };
    // SAFETY: asks for the position.
    let position = at.unwrap_or_else(|| unsafe { libc::syscall(libc::SYS_lseek, fd, 0, libc::SEEK_CUR) });
    let Some(recorder) = state.recorder(handle.recorder) else { return real(len) };
    let fault = recorder.fails();
    // A disk that fills takes what fits and refuses the rest when it is tried again.
    let part = fault.map_or(len, |error| if error == libc::ENOSPC { len / 2 } else { 0 });
    if let Some(error) = fault
        && part == 0
    {
        return errno(error) as ssize_t;
    }
    if handle.spent {
        recorder.violations.push(format!("write to {} after its sync had failed", handle.path.display()));
    }
    let written = real(part);
    if written > 0 {
        // SAFETY: the kernel read so many bytes from there.
        let bytes = unsafe { std::slice::from_raw_parts(data.cast::<u8>(), written as usize) };
        recorder.ops.push(Op::Write { file, at: position as usize, data: bytes.to_vec() });
    }
    written
}

/// The C library's `write`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn write(fd: c_int, data: *const c_void, len: size_t) -> ssize_t {
    // SAFETY: the caller's promise.
    unsafe { write_at(fd, data, len, None) }
}

/// The C library's `pwrite`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite(fd: c_int, data: *const c_void, len: size_t, at: off_t) -> ssize_t {
    // SAFETY: the caller's promise.
    unsafe { write_at(fd, data, len, Some(at)) }
}

/// The C library's `pwrite64`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pwrite64(fd: c_int, data: *const c_void, len: size_t, at: off_t) -> ssize_t {
    // SAFETY: the caller's promise.
    unsafe { write_at(fd, data, len, Some(at)) }
}

/// The C library's `ftruncate`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate(fd: c_int, len: off_t) -> c_int {
    let mut state = STATE.lock();
    if let Some(handle) = state.handle(fd)
        && let Some(file) = handle.file
        && let Some(recorder) = state.recorder(handle.recorder)
    {
        if let Some(error) = recorder.fails() {
            return errno(error);
        }
        recorder.ops.push(Op::Truncate { file, len: len as usize });
    }
    // SAFETY: the caller's arguments, passed on.
    unsafe { libc::syscall(libc::SYS_ftruncate, fd, len) as c_int }
}

/// The C library's `ftruncate64`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ftruncate64(fd: c_int, len: off_t) -> c_int {
    // SAFETY: the same function on 64 bits.
    unsafe { ftruncate(fd, len) }
}

/// The C library's `fsync`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fsync(fd: c_int) -> c_int {
    let mut state = STATE.lock();
    let Some(handle) = state.handle(fd) else {
        drop(state);
        // SAFETY: the caller's argument, passed on.
        return unsafe { libc::syscall(libc::SYS_fsync, fd) as c_int };
    };
    let Some(recorder) = state.recorder(handle.recorder) else { return 0 };
    if handle.spent {
        recorder.violations.push(format!("sync of {} after its sync had failed", handle.path.display()));
    }
    let fault = recorder.fails();
    let op = match (handle.file, fault) {
        (Some(file), None) => Some(Op::Sync { file }),
        (Some(file), Some(_)) => Some(Op::SyncFailed { file }),
        (None, None) => Some(Op::SyncDir { path: handle.path }),
        (None, Some(_)) => None,
    };
    recorder.ops.extend(op);
    let Some(error) = fault else { return 0 };
    if handle.file.is_some()
        && let Some(handle) = state.handles.get_mut(&fd)
    {
        handle.spent = true;
    }
    errno(error)
}

/// The C library's `fdatasync`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn fdatasync(fd: c_int) -> c_int {
    // SAFETY: what differs are times that nobody reads.
    unsafe { fsync(fd) }
}

/// The C library's `unlink`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn unlink(path: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    let name = unsafe { path_of(path) };
    let mut state = STATE.lock();
    if let Some((recorder, path)) = state.find(&name)
        && recorder.names.contains_key(&path)
    {
        if let Some(error) = recorder.fails() {
            return errno(error);
        }
        recorder.names.remove(&path);
        recorder.ops.push(Op::Unlink { path });
    }
    // SAFETY: the caller's argument, passed on.
    unsafe { libc::syscall(libc::SYS_unlinkat, libc::AT_FDCWD, path, 0) as c_int }
}

/// The C library's `rename`.
///
/// # Safety
/// As there.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn rename(from: *const c_char, to: *const c_char) -> c_int {
    // SAFETY: the caller's promise.
    let (name, new_name) = unsafe { (path_of(from), path_of(to)) };
    let mut state = STATE.lock();
    let target = state.find(&new_name).map(|(_, path)| path);
    if let Some((recorder, path)) = state.find(&name)
        && let Some(file) = recorder.names.get(&path).copied()
        && let Some(to) = target
    {
        if let Some(error) = recorder.fails() {
            return errno(error);
        }
        recorder.names.remove(&path);
        recorder.names.insert(to.clone(), file);
        recorder.ops.push(Op::Rename { from: path, to });
    }
    // SAFETY: the caller's arguments, passed on.
    unsafe { libc::syscall(libc::SYS_renameat2, libc::AT_FDCWD, from, libc::AT_FDCWD, to, 0) as c_int }
}
