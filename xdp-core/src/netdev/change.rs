//! Change: something to be done to the host, and what undoes it.
//!
//! An [`Undo`] is written to disk before its change is made, so it must be enough to put things back from a process that
//! knows nothing else, safe to carry out twice, and never hit what others made since: what was created is recognised by
//! more than its name (a namespace by its inode, a link by its address and its namespace), or left alone.
#![forbid(unsafe_code)]

use super::link::current_namespace;
use super::tune::{self, Knob, Place};
use super::{Error, Interface, Mac, Namespace, NewLink, steer};
use crate::cpu::{cpu_list, list_text};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};
use xdp_umem::Errno;

/// Something to be done to the host under a [`Journal`](super::journal::Journal), which calls these in this order.
pub trait Change {
    /// What it leaves in the caller's hands.
    type Made;

    /// Reads the state before and says what will put it back. Changes nothing that outlives the process.
    fn prepare(&mut self) -> Result<Undo, Error>;

    /// Does it.
    fn apply(&mut self) -> Result<Self::Made, Error>;

    /// Reads back whether it took.
    fn verify(&self) -> Result<(), Error>;
}

/// A namespace under a name. See [`Namespace::create_named`].
#[derive(Debug)]
pub struct CreateNamespace {
    name: String,
    prepared: Option<Namespace>,
}

impl CreateNamespace {
    /// One of that name.
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), prepared: None }
    }
}

impl Change for CreateNamespace {
    type Made = Namespace;

    fn prepare(&mut self) -> Result<Undo, Error> {
        // without a name it is nobody's business, and its inode is known before anything is to be undone
        let namespace = self.prepared.insert(Namespace::anonymous()?);
        Ok(Undo::RemoveNamespace { name: self.name.clone(), inode: namespace.inode() })
    }

    fn apply(&mut self) -> Result<Namespace, Error> {
        let mut namespace = match self.prepared.take() {
            Some(namespace) => namespace,
            None => Namespace::anonymous()?,
        };
        namespace.publish(&self.name)?;
        Ok(namespace)
    }

    fn verify(&self) -> Result<(), Error> {
        Namespace::named(&self.name).map(drop)
    }
}

/// A virtual interface or a pair. See [`NewLink`]. Its near end gets a random address unless it was given one.
#[derive(Debug)]
pub struct CreateLink<'n> {
    link: NewLink<'n>,
}

impl<'n> CreateLink<'n> {
    /// That one.
    pub fn new(link: NewLink<'n>) -> Self {
        Self { link }
    }
}

impl Change for CreateLink<'_> {
    type Made = Vec<Interface>;

    fn prepare(&mut self) -> Result<Undo, Error> {
        let mac = self.link.fixed_mac(Mac::random);
        let namespace = match self.link.namespace() {
            Some(namespace) => namespace.inode(),
            None => current_namespace()?,
        };
        Ok(Undo::DeleteLink { namespace, name: self.link.name().to_string(), mac })
    }

    fn apply(&mut self) -> Result<Vec<Interface>, Error> {
        self.link.create()
    }

    fn verify(&self) -> Result<(), Error> {
        // `create` has read it back, each end in its namespace
        Ok(())
    }
}

/// A value in a file of sysfs or `/proc/sys`, or the cores of an interrupt (`/proc/irq/N/smp_affinity_list`), as the calling thread's network namespace sees it.
#[derive(Debug)]
pub struct WriteFile {
    path: PathBuf,
    contents: Vec<u8>,
}

impl WriteFile {
    /// That value to that file: an absolute path under `/sys` or `/proc/sys`, or an interrupt's `smp_affinity_list`.
    pub fn new(path: impl Into<PathBuf>, contents: impl Into<Vec<u8>>) -> Self {
        Self { path: path.into(), contents: contents.into() }
    }
}

impl Change for WriteFile {
    type Made = ();

    fn prepare(&mut self) -> Result<Undo, Error> {
        must_be_setting(&self.path)?;
        let namespace = if is_of_namespace(&self.path) { Some(current_namespace()?) } else { None };
        let contents = in_view(&self.path, namespace, read)?.unwrap_or_default();
        Ok(Undo::WriteFile { namespace, path: self.path.clone(), contents })
    }

    fn apply(&mut self) -> Result<(), Error> {
        must_be_setting(&self.path)?;
        let namespace = if is_of_namespace(&self.path) { Some(current_namespace()?) } else { None };
        in_view(&self.path, namespace, |path| write(path, &self.contents)).map(drop)
    }

    fn verify(&self) -> Result<(), Error> {
        let namespace = if is_of_namespace(&self.path) { Some(current_namespace()?) } else { None };
        let found = in_view(&self.path, namespace, read)?.unwrap_or_default();
        let plain = |bytes: &[u8]| {
            let text = String::from_utf8_lossy(chosen(bytes)).trim().to_string();
            text.trim_start_matches('0').to_string() // masks come back padded
        };
        if plain(&found) == plain(&self.contents) {
            return Ok(());
        }
        let found = String::from_utf8_lossy(&found).trim().to_string();
        Err(Error::new("write", shown(&self.path), Errno::ERANGE).saying(format!("reads back {found}")))
    }
}

/// What puts one change back. Written to the journal as one line; a line is forever, so a kind once written keeps its name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Undo {
    /// Takes a namespace's name away.
    RemoveNamespace {
        /// Under `/run/netns`.
        name: String,
        /// Of the namespace that had the name when it was ours.
        inode: u64,
    },
    /// Deletes a link, and with it its peer.
    DeleteLink {
        /// The inode of the namespace it was made in.
        namespace: u64,
        /// What it was called.
        name: String,
        /// Its address, by which we know it.
        mac: Mac,
    },
    /// Writes back what a file held.
    WriteFile {
        /// The inode of the network namespace it belongs to; `None` for the whole system's.
        namespace: Option<u64>,
        /// Under `/sys` or `/proc/sys`.
        path: PathBuf,
        /// What it held, byte for byte.
        contents: Vec<u8>,
    },
    /// Turns a device's settings back.
    Tune {
        /// Which device.
        at: Place,
        /// What they were.
        was: Knob,
    },
    /// Takes a receive rule away.
    RemoveRule {
        /// Of which device.
        at: Place,
        /// The rule's place in the device's table.
        place: u32,
        /// What the rule was, by which we know it: `struct ethtool_rx_flow_spec`.
        spec: Vec<u8>,
    },
    /// Gives a thread its cores back.
    PinThread {
        /// Its id.
        thread: u32,
        /// When it started, in clock ticks since boot: with the id, its identity.
        start: u64,
        /// The cores it had.
        cores: Vec<usize>,
    },
    /// A line that this version does not understand: a newer one's, or damaged.
    Unknown(String),
}

/// How a change was put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was still there.
    Undone,
    /// It was as before already, or gone.
    AlreadyGone,
}

impl Undo {
    /// Puts it back. Safe to do twice, and for a change that was never made.
    ///
    /// # Errors
    /// The kernel's refusal; `EPROTO` for a line that is not understood, or that would write outside of settings.
    pub fn restore(&self) -> Result<Outcome, Error> {
        match self {
            Self::RemoveNamespace { name, inode } => remove_namespace(name, *inode),
            Self::DeleteLink { namespace, name, mac } => delete_link(*namespace, name, *mac),
            Self::WriteFile { namespace, path, contents } => write_back(*namespace, path, contents),
            Self::Tune { at, was } => tune::turn_back(at, was),
            Self::RemoveRule { at, place, spec } => steer::remove(at, *place, spec),
            Self::PinThread { thread, start, cores } => tune::pin_back(*thread, *start, cores),
            Self::Unknown(line) => Err(Error::new("undo", format!("{line:?}"), Errno::EPROTO)
                .saying("not understood by this version")
                .remedy_is("use the version that wrote it, or undo it by hand and delete the journal")),
        }
    }

    /// As a line of the journal, without its end.
    pub(super) fn encode(&self) -> String {
        match self {
            Self::RemoveNamespace { name, inode } => {
                format!("remove-namespace name={} inode={inode}", escape(name.as_bytes()))
            }
            Self::DeleteLink { namespace, name, mac } => {
                format!("delete-link namespace={namespace} name={} mac={mac}", escape(name.as_bytes()))
            }
            Self::WriteFile { namespace, path, contents } => {
                let namespace = namespace.map_or_else(|| "none".to_string(), |inode| inode.to_string());
                let path = escape(path.as_os_str().as_bytes());
                format!("write-file namespace={namespace} path={path} contents={}", escape(contents))
            }
            Self::Tune { at, was } => tune::encode(at, was, escape),
            Self::RemoveRule { at, place, spec } => {
                let at = tune::place_text(at, escape);
                format!("remove-rule {at} place={place} spec={}", escape(spec))
            }
            Self::PinThread { thread, start, cores } => {
                let cores = escape(list_text(cores).as_bytes());
                format!("pin-thread thread={thread} start={start} cores={cores}")
            }
            Self::Unknown(line) => line.clone(),
        }
    }

    /// The reverse of [`encode`](Self::encode), of any text.
    pub(super) fn decode(line: &str) -> Self {
        Self::parse(line).unwrap_or_else(|| Self::Unknown(line.to_string()))
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let kind = words.next()?;
        let mut next = |name: &'static str| words.next()?.strip_prefix(name)?.strip_prefix('=');
        let text = |word: &str| String::from_utf8(unescape(word)?).ok();
        let undo = match kind {
            "remove-namespace" => {
                Self::RemoveNamespace { name: text(next("name")?)?, inode: next("inode")?.parse().ok()? }
            }
            "delete-link" => Self::DeleteLink {
                namespace: next("namespace")?.parse().ok()?,
                name: text(next("name")?)?,
                mac: next("mac")?.parse().ok()?,
            },
            "write-file" => Self::WriteFile {
                namespace: match next("namespace")? {
                    "none" => None,
                    inode => Some(inode.parse().ok()?),
                },
                path: std::ffi::OsString::from_vec(unescape(next("path")?)?).into(),
                contents: unescape(next("contents")?)?,
            },
            "tune" => Self::Tune {
                at: tune::place_of(&mut next, text)?,
                was: tune::knob_of(next("knob")?, &text(next("values")?)?)?,
            },
            "remove-rule" => Self::RemoveRule {
                at: tune::place_of(&mut next, text)?,
                place: next("place")?.parse().ok()?,
                spec: unescape(next("spec")?)?,
            },
            "pin-thread" => Self::PinThread {
                thread: next("thread")?.parse().ok()?,
                start: next("start")?.parse().ok()?,
                cores: cpu_list(&text(next("cores")?)?),
            },
            _ => return None,
        };
        words.next().is_none().then_some(undo)
    }
}

impl fmt::Display for Undo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemoveNamespace { name, .. } => write!(f, "remove namespace {name}"),
            Self::DeleteLink { name, mac, .. } => write!(f, "delete link {name} ({mac})"),
            Self::WriteFile { path, contents, .. } => {
                write!(f, "write {:?} to {}", String::from_utf8_lossy(contents).trim(), shown(path))
            }
            Self::Tune { at, was } => write!(f, "set {was} of {}", at.name),
            Self::RemoveRule { at, place, spec } => {
                write!(f, "remove receive rule {place} ({}) of {}", steer::shown(spec), at.name)
            }
            Self::PinThread { thread, cores, .. } => {
                write!(f, "let thread {thread} run on {}", list_text(cores))
            }
            Self::Unknown(line) => write!(f, "what is this: {line:?}"),
        }
    }
}

fn remove_namespace(name: &str, inode: u64) -> Result<Outcome, Error> {
    match Namespace::named(name) {
        Ok(found) if found.inode() != inode => return Ok(Outcome::AlreadyGone), // others took the name since
        Err(error) if error.is_absent() => return Ok(Outcome::AlreadyGone),
        // the file, still without its namespace: the process ended between the two
        Err(error) if error.errno() == Errno::EINVAL => {}
        found => drop(found?),
    }
    Namespace::remove(name).map(|()| Outcome::Undone)
}

fn delete_link(namespace: u64, name: &str, mac: Mac) -> Result<Outcome, Error> {
    let Some(namespace) = Namespace::with_inode(namespace) else { return Ok(Outcome::AlreadyGone) };
    namespace.run(|| match Interface::named(name) {
        Ok(found) if found.mac == Some(mac) => found.delete().map(|()| Outcome::Undone),
        Ok(_) => Ok(Outcome::AlreadyGone), // others took the name since
        Err(error) if error.is_absent() => Ok(Outcome::AlreadyGone),
        Err(error) => Err(error),
    })?
}

fn write_back(namespace: Option<u64>, path: &Path, contents: &[u8]) -> Result<Outcome, Error> {
    must_be_setting(path)?;
    let put = |path: &Path| {
        if read(path)? == contents {
            return Ok(Outcome::AlreadyGone);
        }
        write(path, chosen(contents)).map(|()| Outcome::Undone)
    };
    match in_view(path, namespace, put) {
        Err(error) if error.is_absent() => Ok(Outcome::AlreadyGone),
        done => Ok(done?.unwrap_or(Outcome::AlreadyGone)),
    }
}

/// Runs a job where `path` shows that namespace's value; `None` if the namespace is gone.
fn in_view<T: Send>(
    path: &Path,
    namespace: Option<u64>,
    job: impl FnOnce(&Path) -> Result<T, Error> + Send,
) -> Result<Option<T>, Error> {
    let Some(inode) = namespace else { return job(path).map(Some) };
    let Some(namespace) = Namespace::with_inode(inode) else { return Ok(None) };
    let done = match path.starts_with("/sys") {
        // mounted on /sys itself, so the path holds
        true => namespace.with_sysfs(|_| job(path))?,
        false => namespace.run(|| job(path))?,
    };
    done.map(Some)
}

/// `EPROTO` unless it is an absolute path under `/sys` or `/proc/sys`, or an interrupt's cores, without a way out of
/// there: a journal must not be a way to write any file.
fn must_be_setting(path: &Path) -> Result<(), Error> {
    let interrupt = path.starts_with("/proc/irq") && path.ends_with("smp_affinity_list");
    let inside = path.starts_with("/sys") || path.starts_with("/proc/sys") || interrupt;
    let plain = path.components().all(|part| !matches!(part, Component::ParentDir));
    if inside && plain {
        return Ok(());
    }
    Err(Error::new("change", shown(path), Errno::EPROTO)
        .remedy_is("give a path under /sys or /proc/sys, or an interrupt's smp_affinity_list"))
}

/// Whether each network namespace has a value of its own there.
fn is_of_namespace(path: &Path) -> bool {
    let device = path.starts_with("/sys/devices") && path.components().any(|part| part.as_os_str() == "net");
    path.starts_with("/proc/sys/net") || path.starts_with("/sys/class/net") || device
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    const MOST: u64 = 64 << 10;
    let failed = |error: std::io::Error| Error::io("read", shown(path), &error);
    let mut contents = Vec::new();
    File::open(path).map_err(failed)?.take(MOST).read_to_end(&mut contents).map_err(failed)?;
    Ok(contents)
}

/// Writes in one call, as such files want it.
fn write(path: &Path, contents: &[u8]) -> Result<(), Error> {
    let failed = |error: std::io::Error| Error::io("write", shown(path), &error);
    // a link at the end would lead out of where we looked
    let mut file =
        OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(path).map_err(failed)?;
    // a write of nothing would not reach the kernel; a line without words empties such a value
    file.write_all(if contents.is_empty() { b"\n" } else { contents }).map_err(failed)
}

/// What must be written to choose what was read: of `always [madvise] never` the word in brackets, else all of it.
fn chosen(contents: &[u8]) -> &[u8] {
    let mut brackets = contents.iter().enumerate().filter(|(_, byte)| matches!(byte, b'[' | b']'));
    match (brackets.next(), brackets.next(), brackets.next()) {
        (Some((open, b'[')), Some((close, b']')), None) => &contents[open + 1..close],
        _ => contents,
    }
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}

/// Bytes as one word: what is not a plain character becomes `%` and two hex digits.
fn escape(bytes: &[u8]) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"/._:-".contains(byte);
    let one = |byte: &u8| if plain(byte) { char::from(*byte).to_string() } else { format!("%{byte:02x}") };
    bytes.iter().map(one).collect()
}

fn unescape(word: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(word.len());
    let mut rest = word.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, after) = after.split_at_checked(2)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push((digit(digits[0])? << 4 | digit(digits[1])?) as u8);
        rest = after;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    fn place(mac: Option<Mac>) -> Place {
        Place { namespace: 3, index: 4, name: "eth 1".to_string(), mac }
    }

    #[test]
    fn what_is_encoded_is_what_is_decoded() {
        let all = vec![
            Undo::RemoveNamespace { name: "a b\n%=é".to_string(), inode: 4026531840 },
            Undo::DeleteLink { namespace: u64::MAX, name: "veth0".to_string(), mac: Mac::local(7) },
            Undo::WriteFile { namespace: None, path: "/sys/x y".into(), contents: (0..=255).collect() },
            Undo::WriteFile { namespace: Some(5), path: "/proc/sys/net".into(), contents: vec![] },
            Undo::Tune { at: place(None), was: Knob::features(&["rx-gro", "a b"], true) },
            Undo::RemoveRule { at: place(Some(Mac::local(1))), place: 9, spec: (0..168).collect() },
            Undo::PinThread { thread: 7, start: u64::MAX, cores: vec![0, 1, 5] },
        ];
        for undo in all {
            let line = undo.encode();
            assert!(line.is_ascii() && !line.contains('\n'), "{line}");
            assert_eq!(Undo::decode(&line), undo);
        }
    }

    #[test]
    fn what_is_not_understood_is_kept_and_refused() {
        for line in [
            "",
            "fly to=moon",
            "remove-namespace name=a",
            "remove-namespace name=a inode=b",
            "remove-namespace name=%f inode=1",
            "remove-namespace name=%zz inode=1",
            "remove-namespace name=%ff inode=1",
            "remove-namespace name=a inode=1 more=1",
            "delete-link namespace=1 name=a mac=1",
            "write-file namespace= path=/sys/a contents=",
            "tune namespace=1 index=2 name=a mac=none knob=moon values=1",
            "tune namespace=1 index=2 name=a knob=rings values=1/2",
            "remove-rule namespace=1 index=2 name=a mac=none place=x spec=",
            "pin-thread thread=1 cores=1",
        ] {
            let undo = Undo::decode(line);
            assert_eq!(undo, Undo::Unknown(line.to_string()));
            assert_eq!(undo.restore().unwrap_err().errno(), Errno::EPROTO);
        }
    }

    #[test]
    fn nothing_but_settings_is_written() {
        for path in [
            "/proc/irq/1/spurious",
            "/proc/irq/../sys/smp_affinity_list",
            "/etc/passwd",
            "/sys/../etc/passwd",
            "sys/a",
            "/proc/self/mem",
            "/sysfs/a",
            "/run/x",
        ] {
            let undo = Undo::WriteFile { namespace: None, path: path.into(), contents: vec![b'1'] };
            assert_eq!(undo.restore().unwrap_err().errno(), Errno::EPROTO, "{path}");
            assert_eq!(WriteFile::new(path, "1").prepare().unwrap_err().errno(), Errno::EPROTO, "{path}");
        }
        let gone = Undo::WriteFile { namespace: None, path: "/sys/no/such".into(), contents: vec![] };
        assert_eq!(gone.restore().unwrap(), Outcome::AlreadyGone);
    }

    #[test]
    fn of_a_choice_the_chosen_word_is_written() {
        assert_eq!(chosen(b"always [madvise] never\n"), b"madvise");
        for all in [&b"1\n"[..], b"[a] [b]", b"]a[", b"[a", b""] {
            assert_eq!(chosen(all), all);
        }
    }
}
