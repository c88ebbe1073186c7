//! Driver, channels, rings, coalescing and offloads: what ethtool(8) shows and sets.
//!
//! By generic netlink's family `ethtool`; the driver's name, which it does not have, by the old ioctl. What a driver does
//! not support is [`Setting::Unsupported`].
#![forbid(unsafe_code)]

use super::genl::{Family, attributes};
use super::netlink::{ACKED, Answer, Attributes, Request, Socket};
use super::{Error, Interface, Setting, sys};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use xdp_umem::{Errno, Fd};

const FEATURES_GET: u8 = 11;
const FEATURES_SET: u8 = 12;
const RINGS_GET: u8 = 15;
const RINGS_SET: u8 = 16;
const CHANNELS_GET: u8 = 17;
const CHANNELS_SET: u8 = 18;
const COALESCE_GET: u8 = 19;
const COALESCE_SET: u8 = 20;
/// The attribute that names the interface, the same in all of them.
const HEADER: u16 = 1;

/// Checksums left to the driver on transmit: off, packets leave a veth end finished.
pub const TX_CHECKSUM: &[&str] = &[
    "tx-checksum-ipv4",
    "tx-checksum-ip-generic",
    "tx-checksum-ipv6",
    "tx-checksum-fcoe-crc",
    "tx-checksum-sctp",
];
/// Large TCP packets split by the driver.
pub const TSO: &[&str] = &[
    "tx-tcp-segmentation",
    "tx-tcp-ecn-segmentation",
    "tx-tcp-mangleid-segmentation",
    "tx-tcp6-segmentation",
];
/// Received packets joined by the kernel.
pub const GRO: &[&str] = &["rx-gro"];
/// Received packets joined by the hardware.
pub const LRO: &[&str] = &["rx-lro", "rx-gro-hw"];
/// VLAN tags taken out of received packets, where an XDP program no longer sees them.
pub const RX_VLAN: &[&str] = &["rx-vlan-hw-parse", "rx-vlan-stag-hw-parse"];
/// Checksums verified by the driver on receive.
pub const RX_CHECKSUM: &[&str] = &["rx-checksum"];

/// Who drives an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Driver {
    /// The driver's name, such as `"virtio_net"`.
    pub name: String,
    /// The firmware's version; may be empty.
    pub firmware: String,
    /// Where the device is, such as `"0000:00:03.0"`; may be empty.
    pub bus: String,
}

macro_rules! settings {
    ($(#[$doc:meta])* $name:ident, $what:literal, $get:ident, $set:ident { $($(#[$fdoc:meta])* $field:ident $read:literal $(write $write:literal)?),* $(,)? }) => {
        $(#[$doc])*
        ///
        /// `None`: the driver does not have it, or, when given to the setter, it is to stay as it is.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct $name { $($(#[$fdoc])* pub $field: Option<u32>,)* }

        impl $name {
            const WHAT: &'static str = $what;
            const GET: u8 = $get;
            const SET: u8 = $set;

            fn parse(attributes: Attributes<'_>) -> Self {
                Self { $($field: attributes.u32($read),)* }
            }

            /// Adds what can be set and is to be set.
            fn fill(&self, mut request: Request) -> Request {
                $($(if let Some(value) = self.$field { request = number(request, $write, value); })?)*
                request
            }

            /// What can be set, in the order of the fields, for the journal.
            pub(super) fn writable(&self) -> Vec<Option<u32>> {
                Vec::from([$($({ let _ = $write; self.$field },)?)*])
            }

            /// The reverse of [`writable`](Self::writable); `None` for another number of values.
            pub(super) fn of_writable(values: &[Option<u32>]) -> Option<Self> {
                let mut all = Self::default();
                let mut values = values.iter().copied();
                $($({ let _ = $write; all.$field = values.next()?; })?)*
                values.next().is_none().then_some(all)
            }

            /// What of it can be set and is not so in `found`.
            pub(super) fn beyond(&self, found: &Self) -> Self {
                let mut rest = Self::default();
                $($({ let _ = $write; rest.$field = self.$field.filter(|value| found.$field != Some(*value)); })?)*
                rest
            }

            /// Whether everything that can be set and is to be set is so in `found`.
            pub(super) fn holds_in(&self, found: &Self) -> bool {
                true $($(&& { let _ = $write; self.$field.is_none_or(|value| found.$field == Some(value)) })?)*
            }
        }
    };
}

settings! {
    /// How many queues are in use, and how many there could be.
    Channels, "channels", CHANNELS_GET, CHANNELS_SET {
        /// Receive-only channels at most.
        rx_max 2,
        /// Transmit-only channels at most.
        tx_max 3,
        /// Channels of both directions at most.
        combined_max 5,
        /// Receive-only channels.
        rx 6 write 6,
        /// Transmit-only channels.
        tx 7 write 7,
        /// Channels of both directions.
        combined 9 write 9,
    }
}

settings! {
    /// The length of the driver's rings, in descriptors.
    Rings, "ring sizes", RINGS_GET, RINGS_SET {
        /// The receive ring at most.
        rx_max 2,
        /// The transmit ring at most.
        tx_max 5,
        /// The receive ring.
        rx 6 write 6,
        /// The transmit ring.
        tx 9 write 9,
    }
}

settings! {
    /// How long the hardware waits before it interrupts.
    Coalescing, "coalescing", COALESCE_GET, COALESCE_SET {
        /// After a received packet, in microseconds.
        rx_usecs 2 write 2,
        /// Or after so many packets.
        rx_frames 3 write 3,
        /// After a sent packet, in microseconds.
        tx_usecs 6 write 6,
        /// Or after so many packets.
        tx_frames 7 write 7,
        /// Whether the driver adapts the receive values to the load: 0 or 1.
        adaptive_rx 11 write 11,
        /// Whether it adapts the transmit values: 0 or 1.
        adaptive_tx 12 write 12,
    }
}

/// One offload of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Feature {
    /// The kernel's name, as in [`TX_CHECKSUM`].
    pub name: String,
    /// Whether it is on.
    pub on: bool,
    /// Whether it was asked for: it may be and still be off, while something that it needs is off.
    pub wanted: bool,
    /// Whether it can be changed.
    pub changeable: bool,
}

/// The offloads of an interface that are on or can be changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features(pub Vec<Feature>);

impl Features {
    /// Whether any of a group, such as [`GRO`], is on.
    pub fn any_on(&self, group: &[&str]) -> bool {
        self.of(group).any(|feature| feature.on)
    }

    /// Those of a group.
    pub fn of<'a>(&'a self, group: &'a [&str]) -> impl Iterator<Item = &'a Feature> {
        self.0.iter().filter(|feature| group.contains(&feature.name.as_str()))
    }

    fn parse(attributes: Attributes<'_>) -> Self {
        const HW: u16 = 2;
        const WANTED: u16 = 3;
        const ACTIVE: u16 = 4;
        const NOCHANGE: u16 = 5;
        let [hardware, wanted, active, fixed] =
            [HW, WANTED, ACTIVE, NOCHANGE].map(|kind| bits_set(attributes.nest(kind)));
        let mut names: Vec<_> = hardware.iter().chain(&active).collect();
        names.sort_unstable();
        names.dedup();
        let feature = |name: &&str| Feature {
            name: name.to_string(),
            on: active.contains(name),
            wanted: wanted.contains(name),
            changeable: hardware.contains(name) && !fixed.contains(name),
        };
        Self(names.into_iter().map(feature).collect())
    }
}

/// Which receive queues the receive hash spreads packets over.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Indirection {
    /// As the driver does it: over all queues in use.
    Default,
    /// Over these queues in turn, bucket by bucket: `Over(vec![0])` leaves all other queues to steering rules.
    Over(Vec<u32>),
    /// A queue for each bucket, the whole table.
    Table(Vec<u32>),
}

impl Indirection {
    /// What a table as it was read is: the driver's own spread over `queues`, or that table.
    pub fn of(table: Vec<u32>, queues: u32) -> Self {
        let own = (0..).zip(&table).all(|(bucket, queue)| queues > 0 && *queue == bucket % queues);
        if own { Self::Default } else { Self::Table(table) }
    }

    /// As a table of so many buckets; empty for the driver's own.
    fn table(&self, buckets: usize) -> Vec<u32> {
        match self {
            Self::Default => Vec::new(),
            Self::Over(queues) => queues.iter().copied().cycle().take(buckets).collect(),
            Self::Table(table) => table.clone(),
        }
    }

    /// Whether a table as it was read, on a device with so many queues, is what this asks for.
    pub fn holds_in(&self, table: &[u32], queues: u32) -> bool {
        match self {
            Self::Default => Self::of(table.to_vec(), queues) == Self::Default,
            _ => self.table(table.len()) == table,
        }
    }
}

impl Interface {
    /// Its driver; unsupported by the few that have no name. Costs a netlink exchange and an ioctl.
    pub fn driver(&self) -> Result<Setting<Driver>, Error> {
        let words = self.by_ioctl("read", "driver", sys::driver_info);
        let text = |word: &[u8]| {
            String::from_utf8_lossy(word.split(|byte| *byte == 0).next().unwrap_or_default()).into_owned()
        };
        let driver = words.map(|[name, firmware, bus]| Driver {
            name: text(&name),
            firmware: text(&firmware),
            bus: text(&bus),
        });
        Setting::of("driver information", driver)
    }

    /// How many queues are in use. Two netlink exchanges, as all of these.
    pub fn channels(&self) -> Result<Setting<Channels>, Error> {
        self.read(Channels::WHAT, Channels::GET, Channels::parse)
    }

    /// Sets how many queues are in use, and reads back that it took. Many drivers reset the device, and refuse with `EBUSY`
    /// or `EINVAL` while AF_XDP sockets are bound to a queue that would go.
    pub fn set_channels(&self, wanted: &Channels) -> Result<Setting<()>, Error> {
        self.write(
            Channels::WHAT,
            Channels::SET,
            |request| wanted.fill(request),
            || Ok(self.channels()?.value().is_some_and(|found| wanted.holds_in(&found))),
        )
    }

    /// The length of the driver's rings.
    pub fn rings(&self) -> Result<Setting<Rings>, Error> {
        self.read(Rings::WHAT, Rings::GET, Rings::parse)
    }

    /// Sets the length of the driver's rings, and reads back that it took. Some drivers round silently; that is an error
    /// here.
    pub fn set_rings(&self, wanted: &Rings) -> Result<Setting<()>, Error> {
        self.write(
            Rings::WHAT,
            Rings::SET,
            |request| wanted.fill(request),
            || Ok(self.rings()?.value().is_some_and(|found| wanted.holds_in(&found))),
        )
    }

    /// How long the hardware waits before it interrupts.
    pub fn coalescing(&self) -> Result<Setting<Coalescing>, Error> {
        self.read(Coalescing::WHAT, Coalescing::GET, Coalescing::parse)
    }

    /// Sets how long the hardware waits before it interrupts, and reads back that it took.
    pub fn set_coalescing(&self, wanted: &Coalescing) -> Result<Setting<()>, Error> {
        self.write(
            Coalescing::WHAT,
            Coalescing::SET,
            |request| wanted.fill(request),
            || Ok(self.coalescing()?.value().is_some_and(|found| wanted.holds_in(&found))),
        )
    }

    /// The offloads that are on or can be changed.
    pub fn features(&self) -> Result<Setting<Features>, Error> {
        self.read("offloads", FEATURES_GET, Features::parse)
    }

    /// Switches a group of offloads, such as [`TX_CHECKSUM`], on or off, and reads back that it took. Members that the
    /// driver does not have are left out; unsupported if what it has cannot be changed.
    pub fn set_features(&self, group: &[&str], on: bool) -> Result<Setting<()>, Error> {
        let found = match self.features()? {
            Setting::Value(found) => found,
            Setting::Unsupported(reason) => return Ok(Setting::Unsupported(reason)),
        };
        let wrong: Vec<_> = found.of(group).filter(|feature| feature.on != on).collect();
        if let Some(fixed) = wrong.iter().find(|feature| !feature.changeable) {
            return Ok(Setting::Unsupported(format!("{} cannot be changed on {}", fixed.name, self.name)));
        }
        if wrong.is_empty() {
            let missing = on && !found.any_on(group);
            let reason = || format!("{} not supported by {}", group.join(", "), self.name);
            return Ok(if missing { Setting::Unsupported(reason()) } else { Setting::Value(()) });
        }
        let fill =
            |request: Request| want_bits(request, wrong.iter().map(|feature| (feature.name.as_str(), on)));
        self.write("offloads", FEATURES_SET, fill, || {
            let now = self.features()?.value().unwrap_or_default();
            Ok(now.of(group).all(|feature| feature.on == on || !feature.changeable))
        })
    }

    /// Asks for offloads, each on or off, and leaves all others as they are. What becomes of them is the driver's business:
    /// [`features`](Self::features) tells.
    pub(super) fn want_features(&self, wanted: &[(String, bool)]) -> Result<Setting<()>, Error> {
        let fill =
            |request: Request| want_bits(request, wanted.iter().map(|(name, on)| (name.as_str(), *on)));
        Setting::of("offloads", self.exchange("set", "offloads", FEATURES_SET, fill).map(drop))
    }

    /// Which receive queue each bucket of the receive hash goes to (RSS). A netlink exchange and two ioctls.
    pub fn indirection(&self) -> Result<Setting<Vec<u32>>, Error> {
        let table = self.by_ioctl("read", "RSS table", sys::indirection);
        Setting::of("an RSS table", table)
    }

    /// Sets the RSS table, and reads back that it took. `EINVAL` for a queue that is not there.
    ///
    /// On virtio_net set it after the XDP program is attached: attaching resets it.
    pub fn set_indirection(&self, wanted: &Indirection) -> Result<Setting<()>, Error> {
        let found = match self.indirection()? {
            Setting::Value(found) => found,
            Setting::Unsupported(reason) => return Ok(Setting::Unsupported(reason)),
        };
        let table = wanted.table(found.len());
        let set = |socket: &Fd, name: &[u8; 16]| sys::set_indirection(socket, name, &table);
        let written = Setting::of("setting the RSS table", self.by_ioctl("set", "RSS table", set))?;
        if written == Setting::Value(()) && !table.is_empty() && self.indirection()? != Setting::Value(table)
        {
            let error = Error::new("set", format!("RSS table of {}", self.name), Errno::ERANGE);
            return Err(error.saying("accepted, but reads back different"));
        }
        Ok(written)
    }

    /// Runs an old ethtool ioctl on the name it has now.
    pub(super) fn by_ioctl<T>(
        &self,
        operation: &'static str,
        what: &str,
        run: impl FnOnce(&Fd, &[u8; 16]) -> Result<T, Errno>,
    ) -> Result<T, Error> {
        let current = self.refresh()?.name;
        let mut name = [0; 16];
        name[..current.len()].copy_from_slice(current.as_bytes());
        let socket = xdp_umem::sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0);
        let done = socket.and_then(|socket| run(&socket, &name));
        done.map_err(|errno| match errno {
            Errno::EOPNOTSUPP => Error::new(operation, &self.name, errno),
            _ => Error::new(operation, format!("{what} of {}", self.name), errno),
        })
    }

    fn read<T>(
        &self,
        what: &str,
        command: u8,
        parse: impl Fn(Attributes<'_>) -> T,
    ) -> Result<Setting<T>, Error> {
        let answers = self.exchange("read", what, command, |request| request);
        let parsed = answers.and_then(|answers| {
            let answer = answers.first().ok_or_else(|| Error::new("read", &self.name, Errno::EPROTO))?;
            Ok(parse(attributes(answer)))
        });
        Setting::of(what, parsed)
    }

    /// Sets, then asks `took` whether it is so.
    fn write(
        &self,
        what: &str,
        command: u8,
        fill: impl Fn(Request) -> Request,
        took: impl Fn() -> Result<bool, Error>,
    ) -> Result<Setting<()>, Error> {
        let written = Setting::of(what, self.exchange("set", what, command, fill).map(drop))?;
        if written == Setting::Value(()) && !took()? {
            let error = Error::new("set", format!("{what} of {}", self.name), Errno::ERANGE);
            let error = error.saying("accepted, but reads back different");
            return Err(
                error.remedy_is("set what it depends on first (TSO needs TX checksums), or ask for less")
            );
        }
        Ok(written)
    }

    fn exchange(
        &self,
        operation: &'static str,
        what: &str,
        command: u8,
        fill: impl Fn(Request) -> Request,
    ) -> Result<Vec<Answer>, Error> {
        const DEV_INDEX: u16 = 1;
        self.must_be_here(operation)?;
        let mut socket = Socket::generic()?;
        let Some(family) = Family::find(&mut socket, "ethtool")? else {
            return Err(Error::new(operation, &self.name, Errno::EOPNOTSUPP)
                .saying("no ethtool netlink in this kernel"));
        };
        let request = family.request(ACKED, command).nest(HEADER, |header| header.u32(DEV_INDEX, self.index));
        socket.ask(fill(request)).map_err(|refusal| match refusal.errno {
            Errno::EOPNOTSUPP => refusal.of(operation, &self.name),
            _ => refusal.of(operation, format!("{what} of {}", self.name)),
        })
    }
}

/// Adds a number; the kernel wants 8 bits for what is on or off.
fn number(request: Request, kind: u16, value: u32) -> Request {
    const ADAPTIVE: [u16; 2] = [11, 12];
    if ADAPTIVE.contains(&kind) { request.u8(kind, u8::from(value != 0)) } else { request.u32(kind, value) }
}

/// The names of the bits that are set in a bit set.
fn bits_set(set: Attributes<'_>) -> Vec<&str> {
    const NOMASK: u16 = 1;
    const BITS: u16 = 3;
    const NAME: u16 = 2;
    const VALUE: u16 = 3;
    // with a mask, every bit of the mask is listed; without, those that are set
    let listed_is_set = set.find(NOMASK).is_some();
    let bits = set.nest(BITS).map(|bit| bit.nested());
    bits.filter(|bit| listed_is_set || bit.find(VALUE).is_some()).filter_map(|bit| bit.text(NAME)).collect()
}

/// Adds the bit set of wanted features: these on or off, all others as they are.
fn want_bits<'a>(request: Request, features: impl Iterator<Item = (&'a str, bool)>) -> Request {
    const WANTED: u16 = 3;
    const BITS: u16 = 3;
    const BIT: u16 = 1;
    const NAME: u16 = 2;
    const VALUE: u16 = 3;
    let bit = |bits: Request, (name, on): (&str, bool)| {
        bits.nest(BIT, |bit| {
            let bit = bit.text(NAME, name);
            if on { bit.flag(VALUE) } else { bit }
        })
    };
    request.nest(WANTED, |set| set.nest(BITS, |bits| features.fold(bits, bit)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_set_with_a_mask_and_one_without_are_both_read() {
        let wanted = |on| want_bits(Request::new(0, 0), [("rx-gro", on), ("rx-lro", on)].into_iter());
        let read = |request: &Request| bits_set(Attributes::parse(request.payload(), 0).nest(3)).len();
        assert_eq!((read(&wanted(true)), read(&wanted(false))), (2, 0));
        let listed = Request::new(0, 0).flag(1).nest(3, |bits| bits.nest(1, |bit| bit.text(2, "rx-gro")));
        assert_eq!(bits_set(Attributes::parse(listed.payload(), 0)), ["rx-gro"]);
    }

    #[test]
    fn a_table_is_the_drivers_own_only_if_it_is_spread_over_all_queues() {
        let table = alloc::vec![0, 1, 2, 0, 1, 2, 0, 1];
        assert_eq!(Indirection::of(table.clone(), 3), Indirection::Default);
        assert_eq!(Indirection::of(table.clone(), 4), Indirection::Table(table.clone()));
        assert_eq!(Indirection::of(table.clone(), 0), Indirection::Table(table.clone()));
        assert!(Indirection::Over(alloc::vec![0, 1, 2]).holds_in(&table, 4));
        assert!(!Indirection::Over(alloc::vec![1]).holds_in(&table, 3));
        assert!(Indirection::Default.holds_in(&table, 3) && !Indirection::Default.holds_in(&table, 2));
    }

    #[test]
    fn only_what_is_given_is_set_and_compared() {
        let wanted = Coalescing { rx_usecs: Some(8), adaptive_rx: Some(0), ..Coalescing::default() };
        let request = wanted.fill(Request::new(0, 0));
        let attributes: Vec<_> =
            Attributes::parse(request.payload(), 0).map(|one| (one.kind, one.value.len())).collect();
        assert_eq!(attributes, [(2, 4), (11, 1)]);
        let found = Coalescing { tx_usecs: Some(50), ..wanted };
        assert!(wanted.holds_in(&found));
        assert!(!wanted.holds_in(&Coalescing { rx_usecs: Some(9), ..found }));
        assert_eq!(wanted.beyond(&Coalescing { rx_usecs: Some(8), ..found }), Coalescing::default());
        assert_eq!(wanted.beyond(&Coalescing::default()), wanted);
        assert_eq!(Coalescing::of_writable(&wanted.writable()), Some(wanted));
        assert_eq!(Coalescing::of_writable(&[None; 5]), None);
        let most = Channels { rx_max: Some(4), ..Channels::default() };
        assert!(most.holds_in(&Channels::default()), "what cannot be set is not compared");
    }
}
