//! What the privileged tests share: a bed of two namespaces with a veth pair between them, hosts that send and note
//! what arrives, and waiting that fails loudly.

#![allow(dead_code)] // not every test binary uses all of it

pub(crate) mod sys;

extern crate alloc;

use alloc::collections::VecDeque;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use xdp_core::cpu::{self, Cap};
use xdp_core::netdev::{End, Interface, Namespace, NewLink};
use xdp_core::{
    Error, Frame, Layout, Outbox, RegionOptions, Registration, RingSizes, Stage, Transmit, Umem, Verdict,
    XskConfig, XskPort,
};

/// Longer than anything here takes on a machine that is busy with other things.
pub(crate) const LONG: Duration = Duration::from_secs(5);
/// The ethertype of our packets: for local experiments, so that nobody's stack answers.
pub(crate) const OURS: [u8; 2] = [0x88, 0xb5];

/// What the privileged tests need; says so if it is not there.
pub(crate) fn privileged() -> bool {
    let missing = cpu::missing(&[Cap::NetAdmin, Cap::NetRaw, Cap::SysAdmin, Cap::Bpf]).unwrap();
    if !missing.is_empty() {
        println!("skipped: without {missing:?}");
    }
    missing.is_empty()
}

/// One end of a pair: an interface and the namespace it is in.
pub(crate) struct Side {
    pub(crate) namespace: Namespace,
    pub(crate) name: String,
}

impl Side {
    pub(crate) fn bind<'u>(
        &self,
        registration: &mut Registration<'u>,
        queue: u32,
        config: &XskConfig,
    ) -> Result<XskPort<'u>, Error> {
        self.namespace.run(|| registration.bind(&self.name, queue, config)).unwrap()
    }

    /// Runs a job in the namespace, on the interface as it is now.
    pub(crate) fn on<T: Send>(&self, job: impl FnOnce(Interface) -> T + Send) -> T {
        self.namespace.run(|| job(Interface::named(&self.name).unwrap())).unwrap()
    }

    pub(crate) fn set_up(&self, up: bool) {
        self.on(|interface| interface.set_up(up).unwrap());
    }

    pub(crate) fn wait_operational(&self) {
        self.on(|interface| interface.wait_operational(LONG).unwrap());
    }

    pub(crate) fn delete(&self) {
        self.on(|interface| interface.delete().unwrap());
    }

    pub(crate) fn carries_program(&self) -> bool {
        self.on(|interface| interface.xdp.any())
    }
}

/// Two hosts and the wire between them. One at a time in this process: two cores are soon too few for what spins.
pub(crate) struct Bed {
    pub(crate) a: Side,
    pub(crate) b: Side,
    _alone: MutexGuard<'static, ()>,
}

impl Bed {
    /// One queue, the usual MTU. `None`, and said, without privilege.
    pub(crate) fn new() -> Option<Self> {
        Self::with(1, 1500)
    }

    pub(crate) fn with(queues: u32, mtu: u32) -> Option<Self> {
        static ALONE: Mutex<()> = Mutex::new(());
        if !privileged() {
            return None;
        }
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let [a, b] = pair(None, queues, mtu);
        Some(Self { a, b, _alone: alone })
    }

    /// A third host, on a second interface of host B: that interface, and the third host's.
    pub(crate) fn third(&self) -> [Side; 2] {
        let again = self.b.namespace.run(Namespace::current).unwrap().unwrap();
        pair(Some(again), 1, 1500)
    }
}

fn pair(near: Option<Namespace>, queues: u32, mtu: u32) -> [Side; 2] {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let name = |end: char| format!("{end}{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed));
    let side = |namespace: Option<Namespace>, end| Side {
        namespace: namespace.unwrap_or_else(|| Namespace::anonymous().unwrap()),
        name: name(end),
    };
    let sides = [side(near, 'a'), side(None, 'b')];
    let [one, other] = sides.each_ref().map(|side| End::new(&*side.name).in_namespace(&side.namespace));
    NewLink::veth(one, other).queues(queues).mtu(mtu).create_pair().unwrap();
    for side in &sides {
        side.on(|interface| {
            interface.set_ipv6_autoconfigured(false).unwrap();
            interface.set_up(true).unwrap();
        });
    }
    sides.iter().for_each(Side::wait_operational);
    sides
}

/// 1024 chunks of 2048 bytes.
pub(crate) fn umem() -> Umem {
    umem_of(Layout::new(2048, 1024).unwrap())
}

pub(crate) fn umem_of(layout: Layout) -> Umem {
    Umem::new(layout, &RegionOptions::default()).unwrap()
}

/// Rings of 256.
pub(crate) fn config() -> XskConfig {
    XskConfig { rings: RingSizes { fill: 256, rx: 256, tx: 256, completion: 256 }, ..XskConfig::default() }
}

/// A packet with its number in it, `len` bytes in all.
pub(crate) fn packet(number: u32, len: usize) -> Vec<u8> {
    let mut packet = vec![0xff; 6];
    packet.extend([2, 0, 0, 0, 0, 1]);
    packet.extend(OURS);
    packet.extend(number.to_be_bytes());
    packet.extend((packet.len()..len).map(|at| (at as u32).wrapping_mul(number | 1) as u8));
    packet
}

pub(crate) fn number(packet: &[u8]) -> u32 {
    u32::from_be_bytes(packet[14..18].try_into().unwrap())
}

pub(crate) fn is_ours(packet: &[u8]) -> bool {
    packet.len() >= 18 && packet[12..14] == OURS
}

/// Sends our packets back where they came from.
pub(crate) fn reflect(frame: &mut Frame<'_>) -> Verdict {
    if is_ours(frame) { Verdict::Tx } else { Verdict::Drop }
}

/// Sends what it is given, and keeps what arrives, each with its port.
pub(crate) struct Host {
    pub(crate) to_send: VecDeque<(u8, Vec<u8>)>,
    /// How many more it sends than it has seen: few enough for the far end's fill ring, even where nobody runs there.
    pub(crate) window: usize,
    pub(crate) sent: usize,
    pub(crate) seen: Vec<(u8, Vec<u8>)>,
    /// Frames of the last packet seen, and the free bytes before it.
    pub(crate) chunks: usize,
    pub(crate) headroom: usize,
}

impl Default for Host {
    fn default() -> Self {
        Self { to_send: VecDeque::new(), window: 128, sent: 0, seen: vec![], chunks: 0, headroom: 0 }
    }
}

impl Host {
    pub(crate) fn sending(packets: impl IntoIterator<Item = Vec<u8>>) -> Self {
        Self { to_send: packets.into_iter().map(|packet| (0, packet)).collect(), ..Self::default() }
    }

    pub(crate) fn numbers(&self) -> Vec<u32> {
        self.seen.iter().map(|(_, packet)| number(packet)).collect()
    }
}

impl Stage for Host {
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        if is_ours(frame) {
            let whole = frame.fragments().flat_map(|fragment| fragment.iter().copied()).collect();
            self.seen.push((frame.port(), whole));
            (self.chunks, self.headroom) = (frame.chunks(), frame.headroom());
        }
        Verdict::Drop
    }

    fn tick<'u, T: Transmit<'u>>(&mut self, out: &mut Outbox<'_, 'u, T>) {
        while self.sent < self.seen.len() + self.window {
            let Some((port, packet)) = self.to_send.pop_front() else { break };
            if out.room(port, 1) == 0 || !out.copy(port, &packet) {
                self.to_send.push_front((port, packet));
                break;
            }
            self.sent += 1;
        }
    }
}

/// Calls `done` until it says so; fails after [`LONG`].
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < LONG, "not within {LONG:?}: {what}");
    }
}

/// Runs one test of this binary in a process of its own, in the calling thread's namespace, with `XDP_CHILD` set.
/// Returns the process, which has printed `ready`, or its output if it ended without.
pub(crate) fn child(test: &str, argument: &str) -> Result<Child, String> {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(CHILD, argument)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = String::new();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        if line == READY {
            return Ok(child);
        }
        said += &line;
        said.push('\n');
    }
    child.wait().unwrap();
    Err(said)
}

pub(crate) const CHILD: &str = "XDP_CHILD";
pub(crate) const READY: &str = "the child is ready";
