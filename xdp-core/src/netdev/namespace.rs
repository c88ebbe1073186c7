//! Namespace: a network namespace, held open; threads that live in it.
//!
//! A named one is a file under `/run/netns` with the namespace mounted on it, as `ip netns` does, and that
//! command lists it. An anonymous one is held by its descriptor alone and is gone with the process.
#![forbid(unsafe_code)]

use super::{Error, Interface, sys};
use alloc::ffi::CString;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use xdp_umem::{Errno, Fd};

/// Where named namespaces are.
const DIRECTORY: &str = "/run/netns";
/// The calling thread's own.
const OWN: &str = "/proc/thread-self/ns/net";

/// A network namespace, kept alive while this value lives.
#[derive(Debug)]
pub struct Namespace {
    fd: Fd,
    inode: u64,
    name: Option<String>,
    removed_on_drop: bool,
}

impl Namespace {
    /// The calling thread's. Three system calls.
    pub fn current() -> Result<Self, Error> {
        Self::open(Path::new(OWN), None)
    }

    /// The one of process `pid`. `ENOENT` if there is no such process.
    pub fn of_process(pid: u32) -> Result<Self, Error> {
        Self::open(Path::new(&format!("/proc/{pid}/ns/net")), None)
    }

    /// The one mounted on `/run/netns/NAME`.
    ///
    /// # Errors
    /// `ENOENT` with the names there are; `EINVAL` if the file is no network namespace.
    pub fn named(name: &str) -> Result<Self, Error> {
        let path = path_of(name)?;
        Self::open(&path, Some(name)).map_err(|error| match error.errno() {
            Errno::ENOENT => error.remedy_is(format!("there are: {}", or_none(&Self::names()))),
            _ => error,
        })
    }

    /// The one with this inode number, if a name, a process, or a thread or descriptor of this process still leads to
    /// it. Reads much of `/proc`.
    pub fn with_inode(inode: u64) -> Option<Self> {
        // all namespaces are files of one file system, where an inode number names one
        let device = fs::metadata(OWN).ok()?.dev();
        let named = list(DIRECTORY).chain(list("/proc/self/fd"));
        let held = list("/proc/self/task").chain(list("/proc")).map(|entry| entry.join("ns/net"));
        let mut all = core::iter::once(PathBuf::from(OWN)).chain(named).chain(held);
        all.find_map(|path| {
            let found = fs::metadata(&path).ok()?;
            let same = found.ino() == inode && found.dev() == device;
            let name = path.strip_prefix(DIRECTORY).ok().and_then(Path::to_str);
            same.then(|| Self::open(&path, name).ok())?
        })
    }

    /// The names under `/run/netns`, sorted.
    pub fn names() -> Vec<String> {
        let mut names: Vec<_> =
            list(DIRECTORY).filter_map(|path| path.file_name()?.to_str().map(str::to_string)).collect();
        names.sort();
        names
    }

    /// A new one without a name, its `lo` up. It ends with the last descriptor and thread in it. Costs a thread
    /// and about a millisecond.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN, `ENOSPC` at the limit of `/proc/sys/user/max_net_namespaces`.
    pub fn anonymous() -> Result<Self, Error> {
        on_a_thread(|| {
            sys::unshare(libc::CLONE_NEWNET)
                .map_err(|errno| Error::new("create", "network namespace", errno))?;
            let namespace = Self::current()?;
            Interface::named("lo")?.set_up(true)?;
            Ok(namespace)
        })?
    }

    /// A new one under a name, its `lo` up; dropping the value removes the name.
    ///
    /// Makes `/run/netns` and mounts it on itself, shared, if nobody has yet: other mount namespaces (containers,
    /// services) then see the name come and go. That mount stays, as `ip netns add` leaves it.
    ///
    /// # Errors
    /// `EEXIST` if the name is taken, `EINVAL` if it has a slash, `EPERM` without CAP_SYS_ADMIN.
    pub fn create_named(name: &str) -> Result<Self, Error> {
        let mut namespace = Self::anonymous()?;
        namespace.publish(name)?;
        namespace.removed_on_drop = true;
        Ok(namespace)
    }

    /// Mounts the namespace on `/run/netns/NAME`, where it stays until [`remove`](Self::remove). Errors as
    /// [`create_named`](Self::create_named).
    pub(crate) fn publish(&mut self, name: &str) -> Result<(), Error> {
        let path = path_of(name)?;
        let failed = |errno| Error::new("name namespace", name, errno);
        share_directory()?;
        let fresh = OpenOptions::new().write(true).create_new(true).mode(0o0).open(&path);
        fresh.map_err(|error| Error::io("name namespace", name, &error))?;
        // the descriptor's link in /proc, for it leads to this namespace from any thread
        let source = c_string(Path::new(&format!("/proc/self/fd/{}", self.fd.raw())))?;
        if let Err(errno) = sys::mount(Some(&source), &c_string(&path)?, None, libc::MS_BIND) {
            let _ = fs::remove_file(&path);
            return Err(failed(errno));
        }
        self.name = Some(name.to_string());
        Ok(())
    }

    /// Takes the name away; the namespace lives on while somebody is in it or holds it. `ENOENT` if the name is
    /// not there.
    pub fn remove(name: &str) -> Result<(), Error> {
        let path = path_of(name)?;
        match sys::unmount(&c_string(&path)?) {
            // EINVAL: a file nothing is mounted on, left by a process killed between making it and mounting
            Ok(()) | Err(Errno::EINVAL) => {}
            Err(errno) => return Err(Error::new("remove namespace", name, errno)),
        }
        fs::remove_file(&path).map_err(|error| Error::io("remove namespace", name, &error))
    }

    /// Its name, if it was opened or made by name.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Its inode number: the same for the same namespace, and no other has it at the same time.
    pub fn inode(&self) -> u64 {
        self.inode
    }

    /// Its descriptor, for handing the namespace to a system call.
    pub fn fd(&self) -> &Fd {
        &self.fd
    }

    /// Runs `job` on a thread of its own in this namespace, waits for it and returns what it returns. The job may
    /// borrow. If it panics, so does the caller, with the same payload. Costs a thread.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN; the job has then not run.
    pub fn run<T: Send>(&self, job: impl FnOnce() -> T + Send) -> Result<T, Error> {
        on_a_thread(|| self.enter().map(|()| job()))?
    }

    /// Moves the calling thread here for good: for a worker that stays. What it opens from now on belongs here.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN.
    pub fn enter(&self) -> Result<(), Error> {
        let name = self.name.as_deref().unwrap_or("without a name");
        sys::setns_net(&self.fd).map_err(|errno| Error::new("enter namespace", name, errno))
    }

    /// As [`run`](Self::run), with a sysfs of this namespace mounted where the job is told: `class/net` there lists
    /// the namespace's own interfaces. The mount is private to the thread and gone with it.
    ///
    /// # Errors
    /// `EPERM` without CAP_SYS_ADMIN.
    pub fn with_sysfs<T: Send>(&self, job: impl FnOnce(&Path) -> T + Send) -> Result<T, Error> {
        self.run(|| {
            let mounted = sys::unshare(libc::CLONE_NEWNS)
                // a slave: unmounts outside reach us, so that we keep nothing alive; ours stay here
                .and_then(|()| sys::mount(None, c"/", None, libc::MS_SLAVE | libc::MS_REC))
                .and_then(|()| sys::mount(Some(c"sysfs"), c"/sys", Some(c"sysfs"), 0));
            match mounted {
                // EBUSY: what is there is the sysfs of this very namespace
                Ok(()) | Err(Errno::EBUSY) => {}
                Err(errno) => return Err(Error::new("mount", "a sysfs of the namespace", errno)),
            }
            Ok(job(Path::new("/sys")))
        })?
    }

    fn open(path: &Path, name: Option<&str>) -> Result<Self, Error> {
        let shown = || name.map_or_else(|| path.display().to_string(), str::to_string);
        let failed = |error: std::io::Error| Error::io("open namespace", shown(), &error);
        let file = File::open(path).map_err(failed)?;
        let inode = file.metadata().map_err(failed)?.ino();
        let fd = Fd::from(std::os::fd::OwnedFd::from(file));
        if sys::namespace_kind(&fd) != Ok(libc::CLONE_NEWNET) {
            return Err(Error::new("open namespace", shown(), Errno::EINVAL)
                .saying("not a network namespace")
                .remedy_is("choose another name, or remove the file"));
        }
        Ok(Self { fd, inode, name: name.map(str::to_string), removed_on_drop: false })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if let (true, Some(name)) = (self.removed_on_drop, &self.name) {
            // the name may have been removed by hand, and a drop has nobody to tell
            let _ = Self::remove(name);
        }
    }
}

/// Runs a job on a fresh thread; a panic goes on in the caller. `EAGAIN` if there is no thread to be had.
fn on_a_thread<T: Send>(job: impl FnOnce() -> T + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("netns".to_string());
        let thread = builder.spawn_scoped(scope, job);
        let thread = thread.map_err(|error| Error::io("start", "a thread for the namespace", &error))?;
        thread.join().or_else(|payload| std::panic::resume_unwind(payload))
    })
}

/// Makes `/run/netns` a shared mount of its own.
fn share_directory() -> Result<(), Error> {
    let failed = |errno| Error::new("share", DIRECTORY, errno);
    let made = DirBuilder::new().recursive(true).mode(0o755).create(DIRECTORY);
    made.map_err(|error| Error::io("create", DIRECTORY, &error))?;
    let directory = c"/run/netns";
    // two at once would mount it twice, one hiding what the other mounts in it; ip(8) takes the same lock
    let lock = File::open(DIRECTORY).map_err(|error| Error::io("open", DIRECTORY, &error))?;
    sys::lock(lock.as_fd(), true).map_err(failed)?;
    let share = || sys::mount(None, directory, None, libc::MS_SHARED | libc::MS_REC);
    match share() {
        // not yet a mount point
        Err(Errno::EINVAL) => sys::mount(Some(directory), directory, None, libc::MS_BIND | libc::MS_REC)
            .and_then(|()| share())
            .map_err(failed),
        shared => shared.map_err(failed),
    }
}

/// The paths in a directory; none if it cannot be read.
fn list(directory: &str) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

/// The file of a name; `EINVAL` for one that would lead elsewhere.
fn path_of(name: &str) -> Result<PathBuf, Error> {
    let good =
        !name.is_empty() && name.len() <= 255 && name != "." && name != ".." && !name.contains(['/', '\0']);
    if good {
        return Ok(Path::new(DIRECTORY).join(name));
    }
    let error = Error::new("name namespace", format!("{name:?}"), Errno::EINVAL);
    Err(error.remedy_is("use a plain file name of at most 255 bytes"))
}

fn c_string(path: &Path) -> Result<CString, Error> {
    use std::os::unix::ffi::OsStrExt;
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::new("use path", path.display().to_string(), Errno::EINVAL))
}

/// A list for an error text.
pub(crate) fn or_none(names: &[String]) -> String {
    if names.is_empty() { "none".to_string() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_leads_elsewhere_is_refused() {
        for name in ["", ".", "..", "a/b", "../x", "a\0b", &"n".repeat(256)] {
            assert_eq!(path_of(name).unwrap_err().errno(), Errno::EINVAL, "{name:?}");
        }
        assert_eq!(path_of("blue").unwrap(), Path::new("/run/netns/blue"));
    }

    #[test]
    fn an_unknown_name_is_an_error_that_lists_the_known() {
        let error = Namespace::named("no-such-namespace-here").unwrap_err();
        assert_eq!(error.errno(), Errno::ENOENT);
        assert!(error.remedy().starts_with("there are: "), "{error}");
    }

    #[test]
    fn the_current_one_is_that_of_the_process() {
        let current = Namespace::current().unwrap();
        assert_eq!(current.inode(), Namespace::of_process(std::process::id()).unwrap().inode());
        assert_eq!(Namespace::with_inode(current.inode()).unwrap().inode(), current.inode());
    }

    #[test]
    fn a_panic_on_the_thread_goes_on_in_the_caller() {
        let caught = std::panic::catch_unwind(|| on_a_thread(|| -> u32 { panic!("seven") }));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"seven"));
        assert_eq!(on_a_thread(|| 7).unwrap(), 7);
    }
}
