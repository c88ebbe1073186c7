//! Tune: the settings of a device as changes that a journal records and undoes.
//!
//! A [`Knob`] is one group of settings with its values. [`Tune`] turns it: the same knob with the values it had is what
//! undoes it, so whatever can be set can be put back. [`Place`] is how a journal names an interface to somebody who finds
//! it after our end.
//!
#![doc = include_str!("SETTINGS.md")]
#![forbid(unsafe_code)]

use super::change::{Change, Outcome, Undo};
use super::ethtool::{Channels, Coalescing, Indirection, Rings};
use super::genl::{self, Napi, NapiSettings};
use super::journal::{Journal, start_time};
use super::{Error, Interface, Mac, Namespace, Setting, sys};
use crate::cpu::{self, list_text};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use std::path::Path;
use xdp_umem::{Errno, Fd};

/// An interface as somebody else finds it again: by its namespace and index, and one of name and address to be sure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The inode of its namespace.
    pub namespace: u64,
    /// Its index there.
    pub index: u32,
    /// What it was called.
    pub name: String,
    /// Its address.
    pub mac: Option<Mac>,
}

impl Place {
    /// Where that interface is.
    pub fn of(interface: &Interface) -> Self {
        Self {
            namespace: interface.namespace(),
            index: interface.index,
            name: interface.name.clone(),
            mac: interface.mac,
        }
    }

    /// Runs a job on the interface, on a thread in its namespace; `None` if it is gone, or others took its index since.
    pub(super) fn run<T: Send>(
        &self,
        job: impl FnOnce(&Interface) -> Result<T, Error> + Send,
    ) -> Result<Option<T>, Error> {
        let Some(namespace) = Namespace::with_inode(self.namespace) else { return Ok(None) };
        namespace.run(|| match Interface::with_index(self.index) {
            Ok(found) if found.name == self.name || (found.mac.is_some() && found.mac == self.mac) => {
                job(&found).map(Some)
            }
            Ok(_) => Ok(None),
            Err(error) if error.is_absent() => Ok(None),
            Err(error) => Err(error),
        })?
    }
}

/// One group of a device's settings, with the values that it is to have.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Knob {
    /// How many queues are in use.
    Channels(Channels),
    /// The length of the driver's rings.
    Rings(Rings),
    /// How long the hardware waits before it interrupts.
    Coalescing(Coalescing),
    /// Offloads by the kernel's names, each wanted or not; all others stay.
    Features(Vec<(String, bool)>),
    /// Where the receive hash leads.
    Indirection(Indirection),
    /// One NAPI instance.
    Napi {
        /// Its id.
        id: u32,
        /// What it is to have.
        settings: NapiSettings,
    },
}

impl Knob {
    /// A group of offloads, such as [`RX_VLAN`](super::ethtool::RX_VLAN), on or off.
    pub fn features(group: &[&str], on: bool) -> Self {
        Self::Features(group.iter().map(|name| (name.to_string(), on)).collect())
    }

    /// The same settings as they are now: everything that [`turn`](Self::turn) could change, for offloads also what hangs on
    /// them.
    ///
    /// # Errors
    /// `EOPNOTSUPP` where the device does not have them.
    fn now(&self, interface: &Interface) -> Result<Self, Error> {
        Ok(match self {
            Self::Channels(_) => Self::Channels(supported(interface, interface.channels()?)?),
            Self::Rings(_) => Self::Rings(supported(interface, interface.rings()?)?),
            Self::Coalescing(_) => Self::Coalescing(supported(interface, interface.coalescing()?)?),
            Self::Features(wanted) => {
                let found = supported(interface, interface.features()?)?;
                let changeable = |name: &str| found.0.iter().any(|one| one.changeable && one.name == name);
                if !wanted.iter().any(|(name, _)| changeable(name)) {
                    let names: Vec<_> = wanted.iter().map(|(name, _)| name.as_str()).collect();
                    return Err(unsupported(
                        interface,
                        &format!("none of {} can be changed on {}", names.join(", "), interface.name),
                    ));
                }
                let all = found.0.into_iter().filter(|one| one.changeable);
                Self::Features(all.map(|one| (one.name, one.wanted)).collect())
            }
            Self::Indirection(_) => {
                let table = supported(interface, interface.indirection()?)?;
                Self::Indirection(Indirection::of(table, receive_queues(interface)?))
            }
            Self::Napi { id, settings } => {
                let found = napi(interface, *id)?.settings();
                let missing = [
                    (
                        settings.defer_hard_irqs.is_some() && found.defer_hard_irqs.is_none(),
                        "napi_defer_hard_irqs of one instance: needs Linux 6.13",
                    ),
                    (
                        settings.gro_flush_timeout_ns.is_some() && found.gro_flush_timeout_ns.is_none(),
                        "gro_flush_timeout of one instance: needs Linux 6.13",
                    ),
                    (
                        settings.irq_suspend_timeout_ns.is_some() && found.irq_suspend_timeout_ns.is_none(),
                        "irq-suspend-timeout: needs Linux 6.13",
                    ),
                    (
                        settings.threaded.is_some() && found.threaded.is_none(),
                        "a thread for one NAPI instance: needs Linux 6.17",
                    ),
                ];
                if let Some((_, reason)) = missing.iter().find(|(missing, _)| *missing) {
                    return Err(unsupported(interface, reason));
                }
                Self::Napi { id: *id, settings: found }
            }
        })
    }

    /// Sets what is not so already. Returns whether there was anything.
    fn turn(&self, interface: &Interface) -> Result<Outcome, Error> {
        match (self, self.now(interface)?) {
            (Self::Channels(wanted), Self::Channels(found)) if !wanted.holds_in(&found) => {
                supported(interface, interface.set_channels(&wanted.beyond(&found))?)?;
            }
            (Self::Rings(wanted), Self::Rings(found)) if !wanted.holds_in(&found) => {
                supported(interface, interface.set_rings(&wanted.beyond(&found))?)?;
            }
            (Self::Coalescing(wanted), Self::Coalescing(found)) if !wanted.holds_in(&found) => {
                supported(interface, interface.set_coalescing(&wanted.beyond(&found))?)?;
            }
            (Self::Features(wanted), Self::Features(found)) => {
                let differs = |one: &&(String, bool)| found.contains(&(one.0.clone(), !one.1));
                let rest: Vec<_> = wanted.iter().filter(differs).cloned().collect();
                if rest.is_empty() {
                    return Ok(Outcome::AlreadyGone);
                }
                supported(interface, interface.want_features(&rest)?)?;
            }
            (Self::Indirection(wanted), _) if !self.holds(interface)? => {
                supported(interface, interface.set_indirection(wanted)?)?;
            }
            (Self::Napi { id, settings }, _) => {
                let rest = settings.beyond(&napi(interface, *id)?);
                if rest == NapiSettings::default() {
                    return Ok(Outcome::AlreadyGone);
                }
                genl::set_napi(*id, &rest)?;
            }
            _ => return Ok(Outcome::AlreadyGone),
        }
        Ok(Outcome::Undone)
    }

    /// Whether it is so.
    fn holds(&self, interface: &Interface) -> Result<bool, Error> {
        Ok(match (self, self.now(interface)?) {
            (Self::Channels(wanted), Self::Channels(found)) => wanted.holds_in(&found),
            (Self::Rings(wanted), Self::Rings(found)) => wanted.holds_in(&found),
            (Self::Coalescing(wanted), Self::Coalescing(found)) => wanted.holds_in(&found),
            (Self::Features(wanted), _) => {
                let found = supported(interface, interface.features()?)?;
                let is = |name: &str, on| {
                    found.0.iter().all(|one| one.name != name || !one.changeable || one.on == on)
                };
                wanted.iter().all(|(name, on)| is(name, *on))
            }
            (Self::Indirection(wanted), _) => {
                let table = supported(interface, interface.indirection()?)?;
                wanted.holds_in(&table, receive_queues(interface)?)
            }
            (Self::Napi { id, settings }, _) => settings.holds_in(&napi(interface, *id)?),
            _ => false,
        })
    }

    /// What it is, in a word, for the journal.
    fn kind(&self) -> &'static str {
        match self {
            Self::Channels(_) => "channels",
            Self::Rings(_) => "rings",
            Self::Coalescing(_) => "coalescing",
            Self::Features(_) => "features",
            Self::Indirection(_) => "indirection",
            Self::Napi { .. } => "napi",
        }
    }

    /// Its values as text.
    fn values(&self) -> String {
        let numbers = |values: Vec<Option<u32>>| join(values.into_iter().map(|one| one.map(u64::from)));
        match self {
            Self::Channels(values) => numbers(values.writable()),
            Self::Rings(values) => numbers(values.writable()),
            Self::Coalescing(values) => numbers(values.writable()),
            Self::Features(features) => {
                let one = |(name, on): &(String, bool)| format!("{name}:{}", u8::from(*on));
                features.iter().map(one).collect::<Vec<_>>().join("/")
            }
            Self::Indirection(Indirection::Default) => "default".to_string(),
            Self::Indirection(Indirection::Over(queues)) => {
                format!("over:{}", numbers(queues.iter().copied().map(Some).collect()))
            }
            Self::Indirection(Indirection::Table(table)) => {
                format!("table:{}", numbers(table.iter().copied().map(Some).collect()))
            }
            Self::Napi { id, settings } => join([
                Some(u64::from(*id)),
                settings.defer_hard_irqs.map(u64::from),
                settings.gro_flush_timeout_ns,
                settings.irq_suspend_timeout_ns,
                settings.threaded.map(u64::from),
            ]),
        }
    }

    /// The reverse of [`kind`](Self::kind) and [`values`](Self::values).
    fn parse(kind: &str, text: &str) -> Option<Self> {
        let small = |text| split(text)?.into_iter().map(narrow).collect::<Option<Vec<_>>>();
        let all = |text| small(text)?.into_iter().collect::<Option<Vec<u32>>>();
        Some(match kind {
            "channels" => Self::Channels(Channels::of_writable(&small(text)?)?),
            "rings" => Self::Rings(Rings::of_writable(&small(text)?)?),
            "coalescing" => Self::Coalescing(Coalescing::of_writable(&small(text)?)?),
            "features" => {
                let one = |text: &str| {
                    let (name, on) = text.rsplit_once(':')?;
                    Some((name.to_string(), flag(on.parse().ok()?)?))
                };
                Self::Features(text.split('/').map(one).collect::<Option<_>>()?)
            }
            "indirection" => Self::Indirection(match text.split_once(':') {
                None if text == "default" => Indirection::Default,
                Some(("over", queues)) => Indirection::Over(all(queues)?),
                Some(("table", table)) => Indirection::Table(all(table)?),
                _ => return None,
            }),
            "napi" => {
                let [id, defer, flush, suspend, threaded] = split(text)?.try_into().ok()?;
                let settings = NapiSettings {
                    defer_hard_irqs: narrow(defer)?,
                    gro_flush_timeout_ns: flush,
                    irq_suspend_timeout_ns: suspend,
                    threaded: threaded.map(|how| flag(how).ok_or(())).transpose().ok()?,
                };
                Self::Napi { id: narrow(id)??, settings }
            }
            _ => return None,
        })
    }
}

impl fmt::Display for Knob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind(), self.values())
    }
}

/// A knob of an interface, to be turned.
///
/// ```no_run
/// use xdp_core::netdev::ethtool::Coalescing;
/// use xdp_core::netdev::journal::Journal;
/// use xdp_core::netdev::tune::{Knob, Tune};
/// use xdp_core::netdev::{Interface, Setting};
/// let eth1 = Interface::named("eth1")?;
/// let mut at_once = Coalescing::default();
/// (at_once.rx_usecs, at_once.adaptive_rx) = (Some(0), Some(0));
/// let mut journal = Journal::open()?;
/// match journal.set(Tune::new(&eth1, Knob::Coalescing(at_once)))? {
///     Setting::Value(()) => println!("in force, and read back"),
///     Setting::Unsupported(reason) => println!("{reason}"),
/// }
/// drop(journal); // and it is as it was
/// # Ok::<(), xdp_core::netdev::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tune {
    interface: Interface,
    knob: Knob,
}

impl Tune {
    /// That one of that interface.
    pub fn new(interface: &Interface, knob: Knob) -> Self {
        Self { interface: interface.clone(), knob }
    }
}

impl Change for Tune {
    type Made = ();

    fn prepare(&mut self) -> Result<Undo, Error> {
        Ok(Undo::Tune { at: Place::of(&self.interface), was: self.knob.now(&self.interface)? })
    }

    fn apply(&mut self) -> Result<(), Error> {
        self.knob.turn(&self.interface).map(drop)
    }

    fn verify(&self) -> Result<(), Error> {
        if self.knob.holds(&self.interface)? {
            return Ok(());
        }
        let object = format!("{} of {}", self.knob.kind(), self.interface.name);
        let error = Error::new("set", object, Errno::ERANGE).saying("accepted, but reads back different");
        Err(error.remedy_is("set what it depends on first (TSO needs TX checksums), or ask for less"))
    }
}

/// Turns a knob back for [`Undo::Tune`].
pub(super) fn turn_back(at: &Place, was: &Knob) -> Result<Outcome, Error> {
    match at.run(|interface| was.turn(interface)) {
        // a NAPI instance ends with the interface's going down, and its settings with it
        Err(error) if error.is_absent() || error.errno() == Errno::EOPNOTSUPP => Ok(Outcome::AlreadyGone),
        done => Ok(done?.unwrap_or(Outcome::AlreadyGone)),
    }
}

/// [`Undo::Tune`] as words of a line.
pub(super) fn encode(at: &Place, was: &Knob, escape: impl Fn(&[u8]) -> String) -> String {
    let values = escape(was.values().as_bytes());
    format!("tune {} knob={} values={values}", place_text(at, &escape), was.kind())
}

/// A place as words of a line.
pub(super) fn place_text(at: &Place, escape: impl Fn(&[u8]) -> String) -> String {
    let Place { namespace, index, name, mac } = at;
    let mac = mac.map_or_else(|| "none".to_string(), |mac| mac.to_string());
    format!("namespace={namespace} index={index} name={} mac={mac}", escape(name.as_bytes()))
}

/// The reverse of [`place_text`], of words fetched by name.
pub(super) fn place_of<'a>(
    mut next: impl FnMut(&'static str) -> Option<&'a str>,
    unescape: impl Fn(&str) -> Option<String>,
) -> Option<Place> {
    Some(Place {
        namespace: next("namespace")?.parse().ok()?,
        index: next("index")?.parse().ok()?,
        name: unescape(next("name")?)?,
        mac: match next("mac")? {
            "none" => None,
            mac => Some(mac.parse().ok()?),
        },
    })
}

/// The knob of a line.
pub(super) fn knob_of(kind: &str, values: &str) -> Option<Knob> {
    Knob::parse(kind, values)
}

/// The cores a thread may run on, such as the kernel thread of a NAPI instance, as a change.
#[derive(Clone, Debug)]
pub struct PinThread {
    thread: u32,
    cores: Vec<usize>,
}

impl PinThread {
    /// Thread `thread` (an id of the whole system, as [`Napi::pid`]) to these cores.
    pub fn new(thread: u32, cores: &[usize]) -> Self {
        Self { thread, cores: cores.to_vec() }
    }
}

impl Change for PinThread {
    type Made = ();

    fn prepare(&mut self) -> Result<Undo, Error> {
        let start = start_time(self.thread);
        let start = start.ok_or_else(|| Error::new("pin thread", self.thread.to_string(), Errno::ESRCH))?;
        Ok(Undo::PinThread { thread: self.thread, start, cores: cpu::allowed_of(self.thread)? })
    }

    fn apply(&mut self) -> Result<(), Error> {
        pin_thread(self.thread, &self.cores)
    }

    fn verify(&self) -> Result<(), Error> {
        let found = cpu::allowed_of(self.thread)?;
        let mut wanted = self.cores.clone();
        wanted.sort_unstable();
        wanted.dedup();
        if found == wanted {
            return Ok(());
        }
        let error = Error::new("pin thread", self.thread.to_string(), Errno::ERANGE);
        Err(error.saying(format!("granted cores {}", list_text(&found))))
    }
}

fn pin_thread(thread: u32, cores: &[usize]) -> Result<(), Error> {
    let set = i32::try_from(thread).map_err(|_| Errno::ESRCH).and_then(|id| sys::set_affinity(id, cores));
    set.map_err(|errno| {
        let error = Error::new("pin thread", format!("{thread} to {}", list_text(cores)), errno);
        if errno == Errno::EINVAL { error.remedy_is("choose cores that are online") } else { error }
    })
}

/// Pins a thread as it was for [`Undo::PinThread`], if it is still the same.
pub(super) fn pin_back(thread: u32, start: u64, cores: &[usize]) -> Result<Outcome, Error> {
    if start_time(thread) != Some(start) {
        return Ok(Outcome::AlreadyGone);
    }
    match cpu::allowed_of(thread) {
        Ok(found) if found == cores => Ok(Outcome::AlreadyGone),
        Err(error) if error.is_absent() => Ok(Outcome::AlreadyGone),
        _ => pin_thread(thread, cores).map(|()| Outcome::Undone),
    }
}

/// How far a NAPI setting reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The NAPI instances with these ids, by netlink.
    Instances(Vec<u32>),
    /// The whole device, by sysfs: the kernel has no setting for one instance, or there is no instance yet.
    Device,
}

/// Sets the NAPI instances of an interface, or of one queue of it, one by one where the kernel can (Linux 6.13), else the
/// whole device by the sysfs of its namespace. A line of the journal for each instance or file.
///
/// A `threaded` instance's thread is [`Napi::pid`] afterwards; [`PinThread`] gives it a core.
///
/// # Errors
/// Those of reading and writing; what the kernel does not have is [`Setting::Unsupported`].
pub fn set_napi(
    journal: &mut Journal,
    interface: &Interface,
    queue: Option<u32>,
    wanted: &NapiSettings,
) -> Result<Setting<Reach>, Error> {
    interface.must_be_here("set NAPI of")?;
    let all = genl::napis(interface.index)?.unwrap_or_default();
    let able = |napi: &Napi| {
        let had = napi.settings();
        (wanted.defer_hard_irqs.is_none() || had.defer_hard_irqs.is_some())
            && (wanted.gro_flush_timeout_ns.is_none() || had.gro_flush_timeout_ns.is_some())
            && (wanted.threaded.is_none() || had.threaded.is_some())
            && (wanted.irq_suspend_timeout_ns.is_none() || had.irq_suspend_timeout_ns.is_some())
    };
    if !all.is_empty() && all.iter().all(able) {
        let queues = genl::queues(interface.index)?.unwrap_or_default();
        let serves = |id| queues.iter().any(|one| Some(one.id) == queue && one.napi_id == Some(id));
        let linked = queue.is_some() && all.iter().any(|napi| serves(napi.id));
        let ids: Vec<_> = all.iter().map(|napi| napi.id).filter(|id| !linked || serves(*id)).collect();
        for id in &ids {
            if let Setting::Unsupported(reason) =
                journal.set(Tune::new(interface, Knob::Napi { id: *id, settings: *wanted }))?
            {
                return Ok(Setting::Unsupported(reason));
            }
        }
        return Ok(Setting::Value(Reach::Instances(ids)));
    }
    if wanted.irq_suspend_timeout_ns.is_some() {
        let why = if all.is_empty() { "it has no NAPI instance" } else { "needs Linux 6.13" };
        return Ok(Setting::Unsupported(format!("irq-suspend-timeout of {}: {why}", interface.name)));
    }
    let directory = Path::new("/sys/class/net").join(interface.refresh()?.name);
    let files = [
        ("napi_defer_hard_irqs", wanted.defer_hard_irqs.map(u64::from)),
        ("gro_flush_timeout", wanted.gro_flush_timeout_ns),
        ("threaded", wanted.threaded.map(u64::from)),
    ];
    for (file, value) in files {
        let Some(value) = value else { continue };
        let change = super::change::WriteFile::new(directory.join(file), value.to_string());
        if let Setting::Unsupported(reason) = journal.set(change)? {
            return Ok(Setting::Unsupported(reason));
        }
    }
    Ok(Setting::Value(Reach::Device))
}

/// Receives every packet on the wire, whoever it is for, while it lives: the interface is promiscuous by a membership
/// that the kernel takes back with the socket, also after a SIGKILL. What XDP sees on real hardware is what the filter of
/// addresses lets through.
#[derive(Debug)]
pub struct Promiscuous {
    _socket: Fd,
}

impl Promiscuous {
    /// Makes the interface promiscuous, beside whoever did so already, and reads back that the kernel counts it. Five system
    /// calls.
    ///
    /// # Errors
    /// `EPERM` without CAP_NET_RAW.
    pub fn hold(interface: &Interface) -> Result<Self, Error> {
        const PACKET_ADD_MEMBERSHIP: i32 = 1;
        const PACKET_MR_PROMISC: u16 = 1;
        interface.must_be_here("make promiscuous")?;
        let failed = |errno| Error::new("make promiscuous", &interface.name, errno);
        // protocol 0: the socket itself is given no packet
        let socket = xdp_umem::sys::socket(libc::AF_PACKET, libc::SOCK_RAW, 0).map_err(failed)?;
        let mut membership = [0u8; 16]; // struct packet_mreq
        membership[..4].copy_from_slice(&interface.index.to_ne_bytes());
        membership[4..6].copy_from_slice(&PACKET_MR_PROMISC.to_ne_bytes());
        xdp_umem::sys::setsockopt(&socket, libc::SOL_PACKET, PACKET_ADD_MEMBERSHIP, &membership)
            .map_err(failed)?;
        match interface.refresh()?.promiscuity {
            Some(0) => Err(failed(Errno::ERANGE).saying("accepted, but reads back 0")),
            _ => Ok(Self { _socket: socket }),
        }
    }
}

fn napi(interface: &Interface, id: u32) -> Result<Napi, Error> {
    let all = genl::napis(interface.index)?;
    let Some(all) = all else {
        return Err(unsupported(interface, "NAPI instances cannot be named before Linux 6.8"));
    };
    all.into_iter().find(|one| one.id == id).ok_or_else(|| {
        let object = format!("NAPI instance {id} of {}", interface.name);
        Error::new("find", object, Errno::ENOENT)
            .remedy_is("read the instances anew: they change when the interface goes down")
    })
}

/// How many queues the driver's own RSS table is spread over.
fn receive_queues(interface: &Interface) -> Result<u32, Error> {
    Ok(match interface.channels()? {
        Setting::Value(channels) => channels.rx.unwrap_or(0) + channels.combined.unwrap_or(0),
        Setting::Unsupported(_) => interface.queues()?.rx,
    })
}

/// The value of a setting, or `EOPNOTSUPP` with the reason.
fn supported<T>(interface: &Interface, setting: Setting<T>) -> Result<T, Error> {
    match setting {
        Setting::Value(value) => Ok(value),
        Setting::Unsupported(reason) => Err(unsupported(interface, &reason)),
    }
}

fn unsupported(interface: &Interface, reason: &str) -> Error {
    Error::new("tune", &interface.name, Errno::EOPNOTSUPP).saying(reason)
}

/// Numbers, or `-` for none, as one word.
fn join(values: impl IntoIterator<Item = Option<u64>>) -> String {
    let one = |value: Option<u64>| value.map_or_else(|| "-".to_string(), |value| value.to_string());
    values.into_iter().map(one).collect::<Vec<_>>().join("/")
}

/// The reverse of [`join`].
fn split(text: &str) -> Option<Vec<Option<u64>>> {
    let one = |word: &str| if word == "-" { Some(None) } else { word.parse().ok().map(Some) };
    text.split('/').map(one).collect()
}

/// A number of at most 32 bits, or none; `None` if it is larger.
fn narrow(value: Option<u64>) -> Option<Option<u32>> {
    value.map(u32::try_from).transpose().ok()
}

fn flag(value: u64) -> Option<bool> {
    [false, true].get(usize::try_from(value).ok()?).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn every_knob_reads_as_it_is_written() {
        let coalescing = Coalescing::of_writable(&[Some(0), None, Some(u32::MAX), Some(1), None, Some(1)]);
        let napi = NapiSettings { gro_flush_timeout_ns: Some(200_000), ..NapiSettings::default() };
        let all = [
            Knob::Channels(Channels::of_writable(&[None, Some(1), Some(2)]).unwrap()),
            Knob::Rings(Rings::of_writable(&[Some(0), Some(4096)]).unwrap()),
            Knob::Coalescing(coalescing.unwrap()),
            Knob::Features(vec![("rx-gro".to_string(), true), ("tx:odd".to_string(), false)]),
            Knob::Indirection(Indirection::Default),
            Knob::Indirection(Indirection::Over(vec![3])),
            Knob::Indirection(Indirection::Table(vec![0, 1, 1, 0])),
            Knob::Napi { id: 8193, settings: napi },
            Knob::Napi { id: 1, settings: NapiSettings { threaded: Some(false), ..napi } },
        ];
        for knob in all {
            assert_eq!(Knob::parse(knob.kind(), &knob.values()), Some(knob.clone()), "{knob}");
        }
    }

    #[test]
    fn values_that_make_no_sense_are_no_knob() {
        for (kind, values) in [
            ("channels", "1/2"),
            ("channels", "1/2/4294967296"),
            ("rings", ""),
            ("coalescing", "a/b/c/d/e/f"),
            ("features", "rx-gro"),
            ("features", "rx-gro:2"),
            ("indirection", "table:-/1"),
            ("indirection", "other"),
            ("napi", "-/1/2/3/0"),
            ("napi", "1/1/2/3/7"),
            ("napi", "1/1/2/3"),
            ("moon", "1"),
        ] {
            assert_eq!(Knob::parse(kind, values), None, "{kind} {values}");
        }
    }

    #[test]
    fn a_thread_that_is_not_there_is_neither_pinned_nor_pinned_back() {
        let nobody = 1 << 23; // above the kernel's highest
        assert_eq!(PinThread::new(nobody, &[0]).prepare().unwrap_err().errno(), Errno::ESRCH);
        assert_eq!(pin_back(nobody, 1, &[0]).unwrap(), Outcome::AlreadyGone);
        let own = std::process::id();
        assert_eq!(pin_back(own, start_time(own).unwrap() + 1, &[0]).unwrap(), Outcome::AlreadyGone);
    }
}
