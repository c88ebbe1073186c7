//! Journal: what this process changed on the host, on disk before it is changed, so that somebody can put it back.
//!
//! One file for each process, `PID-STARTTIME.journal`, in `/run/xdp-apps` (or `$XDP_APPS_STATE`), a directory of ours
//! that nobody else can read or enter. A line says what will undo a change and is on disk before the change is made; a line that the
//! end of the process cut short is a change that was not made. The last change is undone first: on
//! [`restore`](Journal::restore), which an app also calls on SIGINT and SIGTERM; on drop, so also on a panic; and after a
//! SIGKILL by whoever asks for the [`leftovers`](Journal::leftovers).
//!
//! ```text
//! xdp-apps journal 1
//! do 0 remove-namespace name=blue inode=4026532293
//! do 1 delete-link namespace=4026531840 name=veth0 mac=02:5c:1f:e0:22:9a
//! do 2 write-file namespace=4026531840 path=/proc/sys/net/ipv4/ip_forward contents=0%0a
//! undone 2
//! ```
#![forbid(unsafe_code)]

use super::change::{Change, Outcome, Undo};
use super::{Error, Setting, sys};
use crate::cpu::stat_field;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use std::fs::{self, DirBuilder, File, Metadata, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use xdp_umem::Errno;

/// The first line.
const VERSION: &str = "xdp-apps journal 1";
/// More than any run writes: what is longer is not read.
const LEN_MAX: u64 = 4 << 20;

/// The open journal of this process.
#[derive(Debug)]
pub struct Journal {
    log: Log,
}

impl Journal {
    /// Opens this process's journal in `$XDP_APPS_STATE`, else in `/run/xdp-apps`, which it makes if need be.
    ///
    /// # Errors
    /// `EEXIST` if the process has one (share it), `EACCES` if the directory is not ours alone, `ELOOP` if it is a symbolic link.
    pub fn open() -> Result<Self, Error> {
        Self::open_in(&directory())
    }

    /// As [`open`](Self::open), in that directory. Its parent must exist.
    pub fn open_in(directory: &Path) -> Result<Self, Error> {
        make_private(directory)?;
        let pid = std::process::id();
        let start =
            start_time(pid).ok_or_else(|| Error::new("read", "this process's start time", Errno::EPROTO))?;
        let path = directory.join(format!("{pid}-{start}.journal"));
        let failed = |error: std::io::Error| Error::io("open journal", path.display().to_string(), &error);
        let mut options = OpenOptions::new();
        options.read(true).append(true).create_new(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let file = options.open(&path).map_err(|error| match error.raw_os_error() {
            Some(libc::EEXIST) => failed(error).remedy_is("share the journal that this process has open"),
            _ => failed(error),
        })?;
        let mut log = Log { file, path: path.clone(), steps: Vec::new(), next: 0 };
        let opened = sys::lock(log.file.as_fd(), false)
            .map_err(|errno| Error::new("lock journal", path.display().to_string(), errno))
            .and_then(|()| log.append(VERSION))
            .and_then(|()| File::open(directory).and_then(|directory| directory.sync_all()).map_err(failed));
        match opened {
            Ok(()) => Ok(Self { log }),
            Err(error) => {
                let _ = fs::remove_file(&path);
                Err(error)
            }
        }
    }

    /// Records what will undo a change, makes it, and reads back that it took. A change that fails, or does not read back,
    /// is undone at once. Costs a write and an fsync more than the change itself.
    ///
    /// # Errors
    /// The change's own; those of writing the journal, and then nothing was changed.
    pub fn apply<C: Change>(&mut self, mut change: C) -> Result<C::Made, Error> {
        let undo = change.prepare()?;
        let step = self.log.record(undo)?;
        let applied = change.apply().and_then(|made| change.verify().map(|()| made));
        if applied.is_err() {
            // should this fail too, the step stays in the journal, to be tried again
            let _ = self.log.undo(step);
        }
        applied
    }

    /// As [`apply`](Self::apply), for a change that this host or device may not have: then it says so, nothing is changed and
    /// nothing is recorded.
    pub fn set<C: Change>(&mut self, change: C) -> Result<Setting<C::Made>, Error> {
        match self.apply(change) {
            Ok(made) => Ok(Setting::Value(made)),
            Err(error) if is_no_file(&error) => Ok(Setting::Unsupported(format!(
                "{} is not there: this kernel, processor or driver has no such setting",
                error.object()
            ))),
            Err(error) if error.errno() == Errno::EOPNOTSUPP => {
                let reason =
                    if error.said().is_empty() { error.to_string() } else { error.said().to_string() };
                Ok(Setting::Unsupported(reason))
            }
            Err(error) => Err(error),
        }
    }

    /// Undoes everything, the last change first. What could not be undone stays recorded, and can be tried again.
    pub fn restore(&mut self) -> Report {
        self.log.restore()
    }

    /// How many changes there are to undo.
    pub fn len(&self) -> usize {
        self.log.steps.len()
    }

    /// Whether there is nothing to undo.
    pub fn is_empty(&self) -> bool {
        self.log.steps.is_empty()
    }

    /// The journals of processes that ended without undoing what they did, oldest process first; empty if there was never
    /// one. Each is locked while its value lives, so that only one process works at it.
    ///
    /// # Errors
    /// As [`open`](Self::open), for the directory.
    pub fn leftovers() -> Result<Vec<Leftover>, Error> {
        Self::leftovers_in(&directory())
    }

    /// As [`leftovers`](Self::leftovers), in that directory.
    pub fn leftovers_in(directory: &Path) -> Result<Vec<Leftover>, Error> {
        match fs::symlink_metadata(directory) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => return Ok(Vec::new()),
            found => must_be_private(directory, found)?,
        }
        let failed =
            |error: std::io::Error| Error::io("list journals in", directory.display().to_string(), &error);
        let mut found = Vec::new();
        for entry in fs::read_dir(directory).map_err(failed)? {
            found.extend(Leftover::open(&entry.map_err(failed)?.path()));
        }
        found.sort_by_key(|leftover| (leftover.start, leftover.pid));
        Ok(found)
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // what cannot be undone stays on disk for the next one who asks for leftovers
        self.log.restore();
        if self.log.steps.is_empty() {
            let _ = fs::remove_file(&self.log.path);
        }
    }
}

/// Whether a setting's file is not there: the kernel, the processor or the driver has no such setting.
fn is_no_file(error: &Error) -> bool {
    error.errno() == Errno::ENOENT && error.operation() == "read"
}

/// What a journal's bytes leave to undo, in the order it was done. Takes any bytes; what it cannot read is
/// [`Undo::Unknown`].
pub fn steps_in(bytes: &[u8]) -> Vec<Undo> {
    parse(bytes).into_iter().map(|(_, undo)| undo).collect()
}

/// A journal whose process is gone.
#[derive(Debug)]
pub struct Leftover {
    log: Log,
    pid: u32,
    start: u64,
}

impl Leftover {
    /// The process that wrote it.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What there is to undo, in the order it was done.
    pub fn steps(&self) -> impl Iterator<Item = &Undo> {
        self.log.steps.iter().map(|(_, undo)| undo)
    }

    /// Undoes it, the last change first, and removes the journal if nothing is left.
    pub fn restore(mut self) -> Report {
        let report = self.log.restore();
        if self.log.steps.is_empty() {
            let _ = fs::remove_file(&self.log.path);
        }
        report
    }

    /// `None` if it is no journal of ours, or its process lives.
    fn open(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(".journal")?;
        let (pid, start) = name.split_once('-')?;
        let (pid, start) = (pid.parse().ok()?, start.parse().ok()?);
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let mut file = OpenOptions::new().read(true).append(true).custom_flags(flags).open(path).ok()?;
        let found = file.metadata().ok()?;
        if !found.is_file() || !is_ours_alone(&found) {
            return None;
        }
        // the lock is the proof, for the kernel lets go of it with the process; the start time covers a process that
        // has made its journal and not yet locked it
        sys::lock(file.as_fd(), false).ok()?;
        let still_there = fs::symlink_metadata(path).is_ok_and(|now| now.ino() == found.ino());
        if !still_there || start_time(pid) == Some(start) {
            return None;
        }
        let steps = read_steps(&mut file).ok()?;
        Some(Self { log: Log { file, path: path.to_path_buf(), steps, next: u32::MAX }, pid, start })
    }
}

/// What became of each step.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// One for each step, in the order they were undone.
    pub lines: Vec<(Undo, Result<Outcome, Error>)>,
}

impl Report {
    /// Whether nothing is left to undo.
    pub fn is_complete(&self) -> bool {
        self.lines.iter().all(|(_, outcome)| outcome.is_ok())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (undo, outcome) in &self.lines {
            match outcome {
                Ok(Outcome::Undone) => writeln!(f, "done: {undo}")?,
                Ok(Outcome::AlreadyGone) => writeln!(f, "already so: {undo}")?,
                Err(error) => writeln!(f, "failed: {undo}: {error}")?,
            }
        }
        Ok(())
    }
}

/// The file, and the steps in it that are not undone.
#[derive(Debug)]
struct Log {
    file: File,
    path: PathBuf,
    steps: Vec<(u32, Undo)>,
    next: u32,
}

impl Log {
    /// On disk when it returns.
    fn append(&mut self, line: &str) -> Result<(), Error> {
        let written =
            self.file.write_all(format!("{line}\n").as_bytes()).and_then(|()| self.file.sync_data());
        written.map_err(|error| Error::io("write journal", self.path.display().to_string(), &error))
    }

    fn record(&mut self, undo: Undo) -> Result<u32, Error> {
        let step = self.next;
        self.append(&format!("do {step} {}", undo.encode()))?;
        self.next += 1;
        self.steps.push((step, undo));
        Ok(step)
    }

    fn undo(&mut self, step: u32) -> Result<Outcome, Error> {
        let Some(at) = self.steps.iter().position(|(one, _)| *one == step) else {
            return Ok(Outcome::AlreadyGone);
        };
        let outcome = self.steps[at].1.restore()?;
        self.append(&format!("undone {step}"))?;
        self.steps.remove(at);
        Ok(outcome)
    }

    fn restore(&mut self) -> Report {
        let steps: Vec<_> = self.steps.iter().rev().cloned().collect();
        Report { lines: steps.into_iter().map(|(step, undo)| (undo, self.undo(step))).collect() }
    }
}

/// The steps not undone in a dead process's file, from which what its end cut short is cut off.
fn read_steps(file: &mut File) -> std::io::Result<Vec<(u32, Undo)>> {
    if file.metadata()?.len() > LEN_MAX {
        return Ok(Vec::from([(u32::MAX, Undo::Unknown("a journal too long to be one".to_string()))]));
    }
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes)?;
    file.set_len(whole_lines(&bytes) as u64)?;
    Ok(parse(&bytes))
}

/// The length of all lines that have an end.
fn whole_lines(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1)
}

/// The steps not undone, of any bytes.
fn parse(bytes: &[u8]) -> Vec<(u32, Undo)> {
    let text = String::from_utf8_lossy(&bytes[..whole_lines(bytes)]);
    let mut lines = text.lines();
    match lines.next() {
        None => return Vec::new(),
        Some(VERSION) => {}
        Some(_) => return Vec::from([(0, Undo::Unknown("a journal of another version".to_string()))]),
    }
    let mut steps: Vec<(u32, Undo)> = Vec::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let (kind, rest) = line.split_once(' ').unwrap_or((line, ""));
        let (number, undo) = rest.split_once(' ').unwrap_or((rest, ""));
        match (kind, number.parse()) {
            ("do", Ok(step)) if steps.iter().all(|(one, _)| *one != step) => {
                steps.push((step, Undo::decode(undo)))
            }
            ("undone", Ok(step)) => steps.retain(|(one, _)| *one != step),
            _ => steps.push((u32::MAX, Undo::Unknown(line.to_string()))),
        }
    }
    steps
}

/// Where journals are.
fn directory() -> PathBuf {
    match std::env::var_os("XDP_APPS_STATE") {
        Some(path) if !path.is_empty() => path.into(),
        _ => "/run/xdp-apps".into(),
    }
}

/// When a process started, in clock ticks since boot: with the pid, its identity. `None` if there is none.
pub(super) fn start_time(pid: u32) -> Option<u64> {
    const STARTTIME: usize = 22; // proc_pid_stat(5)
    stat_field(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?, STARTTIME)?.parse().ok()
}

fn make_private(directory: &Path) -> Result<(), Error> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.raw_os_error() != Some(libc::EEXIST) => {
            Err(Error::io("create", directory.display().to_string(), &error))
        }
        _ => must_be_private(directory, fs::symlink_metadata(directory)),
    }
}

fn must_be_private(directory: &Path, found: std::io::Result<Metadata>) -> Result<(), Error> {
    let shown = directory.display().to_string();
    let found = found.map_err(|error| Error::io("use", shown.clone(), &error))?;
    let refused = |errno, remedy| Err(Error::new("use", shown.clone(), errno).remedy_is(remedy));
    if found.is_symlink() {
        return refused(Errno::ELOOP, "name the directory itself, not a symbolic link");
    }
    if !found.is_dir() {
        return refused(Errno::ENOTDIR, "remove the file, or name a directory");
    }
    if !is_ours_alone(&found) {
        return refused(
            Errno::EACCES,
            "it must be yours with mode 0700: chown and chmod it, or name another",
        );
    }
    Ok(())
}

/// Whether it is the user's, and nobody else may read, write or enter it.
fn is_ours_alone(found: &Metadata) -> bool {
    found.uid() == sys::effective_user() && found.mode() & 0o077 == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

    /// A directory of the test's own, gone at its end.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let name = format!("xdp-journal-{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
            Self(std::env::temp_dir().join(name))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
            let _ = fs::remove_file(&self.0);
        }
    }

    fn gone(name: &str) -> Undo {
        Undo::WriteFile { namespace: None, path: format!("/sys/no/such/{name}").into(), contents: Vec::new() }
    }

    #[test]
    fn a_line_cut_short_is_a_step_not_made() {
        let text = format!("{VERSION}\ndo 0 {}\ndo 1 {}\nundone 0\n", gone("a").encode(), gone("b").encode());
        assert_eq!(parse(text.as_bytes()), [(1, gone("b"))]);
        for len in 0..text.len() {
            let steps = parse(&text.as_bytes()[..len]);
            let lines = text[..len].matches('\n').count();
            assert_eq!(steps.len(), [0, 0, 1, 2][lines], "{len}");
            assert!(steps.iter().all(|(_, undo)| !matches!(undo, Undo::Unknown(_))));
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic_and_what_it_cannot_read_it_keeps() {
        let mut state = 0x2545_f491_4f6c_dd1du64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as usize
        };
        let good = format!("{VERSION}\ndo 0 {}\ndo 1 {}\nundone 1\n", gone("a").encode(), gone("%").encode());
        let mut unknown = 0;
        for _ in 0..20_000 {
            let mut bytes = good.clone().into_bytes();
            for _ in 0..random() % 4 {
                let at = random() % bytes.len();
                bytes[at] = random() as u8;
            }
            bytes.truncate(bytes.len() - random() % 8);
            for undo in steps_in(&bytes) {
                unknown += usize::from(matches!(undo, Undo::Unknown(_)));
                assert!(undo.encode().is_ascii() || matches!(undo, Undo::Unknown(_)));
            }
        }
        assert!(unknown > 1000, "the mutations must reach the lines: {unknown}");
        assert_eq!(parse(b"xdp-apps journal 2\ndo 0 x\n").len(), 1, "another version is not guessed at");
        assert_eq!(parse(&[0xff; 100]), [], "no whole line");
    }

    #[test]
    fn a_directory_that_is_not_ours_alone_is_refused() {
        let scratch = Scratch::new();
        let refused = || Journal::open_in(&scratch.0).unwrap_err().errno();
        DirBuilder::new().mode(0o755).create(&scratch.0).unwrap();
        assert_eq!(refused(), Errno::EACCES);
        assert_eq!(Journal::leftovers_in(&scratch.0).unwrap_err().errno(), Errno::EACCES);
        fs::remove_dir(&scratch.0).unwrap();
        std::os::unix::fs::symlink("/tmp", &scratch.0).unwrap();
        assert_eq!(refused(), Errno::ELOOP);
        fs::remove_file(&scratch.0).unwrap();
        fs::write(&scratch.0, "").unwrap();
        assert_eq!(refused(), Errno::ENOTDIR);
    }

    #[test]
    fn a_process_has_one_journal_and_it_is_no_leftover_while_the_process_lives() {
        let scratch = Scratch::new();
        assert_eq!(Journal::leftovers_in(&scratch.0).unwrap().len(), 0, "there is not even a directory");
        let journal = Journal::open_in(&scratch.0).unwrap();
        assert_eq!(Journal::open_in(&scratch.0).unwrap_err().errno(), Errno::EEXIST);
        assert_eq!(Journal::leftovers_in(&scratch.0).unwrap().len(), 0);
        let mode = fs::metadata(&journal.log.path).unwrap().mode() & 0o777;
        assert_eq!(mode, 0o600);
        drop(journal);
        assert_eq!(fs::read_dir(&scratch.0).unwrap().count(), 0, "nothing to undo, nothing to keep");
        // as it is for a moment between its making and its locking; and the same pid, but of a process before
        let (pid, start) = (std::process::id(), start_time(std::process::id()).unwrap());
        for (start, leftovers) in [(start, 0), (start - 1, 1)] {
            let path = scratch.0.join(format!("{pid}-{start}.journal"));
            OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
            assert_eq!(Journal::leftovers_in(&scratch.0).unwrap().len(), leftovers);
        }
    }

    #[test]
    fn a_dead_process_journal_is_undone_last_step_first_and_removed() {
        let scratch = Scratch::new();
        make_private(&scratch.0).unwrap();
        // no process has this pid: it is above the kernel's highest
        let path = scratch.0.join(format!("{}-1.journal", 1 << 23));
        let lines = format!(
            "{VERSION}\ndo 0 {}\ndo 1 fly to=moon\ndo 2 {}\ndo 3 wri",
            gone("a").encode(),
            gone("c").encode()
        );
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .unwrap()
            .write_all(lines.as_bytes())
            .unwrap();
        fs::write(scratch.0.join("notes.txt"), "not a journal").unwrap();
        let take = || Journal::leftovers_in(&scratch.0).unwrap().pop().unwrap();
        let first = take();
        assert_eq!((first.pid(), first.steps().count()), (1 << 23, 3));
        assert_eq!(Journal::leftovers_in(&scratch.0).unwrap().len(), 0, "locked while somebody works at it");
        let report = first.restore();
        assert_eq!(report.lines[0].0, gone("c"));
        assert!(!report.is_complete(), "{report}");
        let rest = take();
        assert_eq!(rest.steps().collect::<Vec<_>>(), [&Undo::Unknown("fly to=moon".to_string())]);
        assert!(report.to_string().contains("failed: what is this"), "{report}");
        assert!(path.exists(), "kept for a version that knows");
    }
}
