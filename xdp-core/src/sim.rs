//! The kernel's half of a port, simulated: what is built on ports is tested on it, without privilege.
//!
//! Not a mock: the port is the real one over other memory, and [`Wire`] holds the far ends of its rings and plays the
//! kernel by the kernel's rules: it sends only when woken, asks for wake-ups as the drivers do that it models
//! ([`Model`]), and is late, stingy and lossy as far as its [`Temper`] goes and the contract (K1 to K3) allows. All of it
//! is drawn from a seed, so that what failed can be run again.

use crate::far::{Bellpush, Far, Kicked, Outcome, State, Want};
use crate::port::{Port, RingReceiver, RingTransmitter};
use crate::ring::{Consumer, HeapRing, Producer, RingSizes, Watcher};
use crate::uapi::XDP_RING_NEED_WAKEUP;
use alloc::collections::VecDeque;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};
use xdp_umem::{Desc, Umem};

/// A port whose kernel is a [`Wire`].
pub type SimPort<'u> = Port<RingReceiver<'u, Arc<HeapRing>>, RingTransmitter<'u, Arc<HeapRing>>, Bell>;

/// Which kernel is played. What makes them differ is when the tx ring is looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Model {
    /// Copy mode on any device: sends only inside the kick, 32 packets at most, the tx flag always set.
    #[default]
    Copy,
    /// i40e, zero-copy: one poll serves both directions, tx first, and only a received packet or a kick runs it.
    I40e,
    /// igb with paired vectors, zero-copy: as i40e, but a poll that received runs once more.
    Igb,
    /// virtio_net, zero-copy: sending has a poll of its own, which only a kick runs.
    Virtio,
}

impl Model {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Copy, Self::I40e, Self::Igb, Self::Virtio];
}

/// How far the simulated kernel goes within its contract. The default is prompt and whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Temper {
    /// Steps of a hundred in which nothing is done.
    pub late: u32,
    /// The most packets a direction moves in a step; 0 for no limit.
    pub stingy: u32,
    /// Packets of a hundred lost on the way in, and as many on the way out.
    pub lossy: u32,
    /// Completions of a hundred held back to a later step, and so out of order.
    pub straggling: u32,
}

impl Temper {
    /// All of it at once.
    pub const BAD: Self = Self { late: 30, stingy: 3, lossy: 10, straggling: 30 };
}

/// What to simulate.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Of the four rings.
    pub rings: RingSizes,
    /// Where the ring indices begin.
    pub first_index: u32,
    /// Which kernel.
    pub model: Model,
    /// Whether the socket is bound with need_wakeup.
    pub need_wakeup: bool,
    /// How bad it is.
    pub temper: Temper,
    /// What every choice is drawn from.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            rings: RingSizes { fill: 64, rx: 64, tx: 64, completion: 64 },
            first_index: 0,
            model: Model::Copy,
            need_wakeup: true,
            temper: Temper::default(),
            seed: 1,
        }
    }
}

/// A port of 64 frames a ring, and the wire behind it.
pub fn link(umem: &Umem) -> (SimPort<'_>, Wire<'_>) {
    link_with(umem, &Config::default())
}

/// A port and the wire behind it, as `config` says.
pub fn link_with<'u>(umem: &'u Umem, config: &Config) -> (SimPort<'u>, Wire<'u>) {
    let ring = |capacity| Arc::new(HeapRing::new(capacity, config.first_index));
    let (fill, rx) = (ring(config.rings.fill), ring(config.rings.rx));
    let (tx, completion) = (ring(config.rings.tx), ring(config.rings.completion));
    tx.flags().store(XDP_RING_NEED_WAKEUP, Relaxed); // as the kernel makes it
    let rung = Arc::new(Rung::default());
    let bell = Bell {
        push: Bellpush::new(config.model != Model::Copy),
        tx: Watcher::new(tx.clone()),
        fill: Watcher::new(fill.clone()),
        rung: rung.clone(),
        state: State::Up,
    };
    // SAFETY: R4, both ends of each fresh ring are made here, once, and the far ends move addresses from fill to rx and
    // from tx to completion only (K1), as `Wire` shows.
    unsafe {
        let receiver = RingReceiver::new(umem, Producer::new(fill.clone()), [Consumer::new(rx.clone())]);
        let transmitter =
            RingTransmitter::new(umem, [Producer::new(tx.clone())], Consumer::new(completion.clone()));
        let wire = Wire {
            umem,
            fill: Consumer::new(fill),
            rx: Producer::new(rx),
            tx: Consumer::new(tx),
            completion: Producer::new(completion),
            config: *config,
            rung,
            seen: (0, 0),
            incoming: VecDeque::new(),
            outgoing: VecDeque::new(),
            partial: Vec::new(),
            stragglers: Vec::new(),
            receive_due: false,
            send_due: false,
            random: config.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            stats: WireStats::default(),
        };
        (Port::new(receiver, transmitter, bell), wire)
    }
}

/// How often the bell rang, for sending and for receiving, and whether the interface is there.
#[derive(Debug, Default)]
struct Rung {
    tx: AtomicU32,
    rx: AtomicU32,
    state: AtomicU32,
    calls: AtomicU64,
}

/// The far side of a [`SimPort`]: counts kicks, which the wire obeys when it next runs.
#[derive(Debug)]
pub struct Bell {
    push: Bellpush,
    tx: Watcher<Arc<HeapRing>>,
    fill: Watcher<Arc<HeapRing>>,
    rung: Arc<Rung>,
    state: State,
}

/// Adds one where only one thread ever adds: no locked instruction.
#[inline]
fn add_one(count: &AtomicU32) {
    count.store(count.load(Relaxed).wrapping_add(1), Relaxed);
}

impl Far for Bell {
    #[inline]
    fn kick(&mut self, want: Want) -> Kicked {
        let pending = self.tx.pending();
        let send = want.tx && self.push.due(pending, self.tx.taken(), self.tx.needs_wakeup(), crate::ticks);
        let receive = want.rx && self.fill.needs_wakeup();
        if !(send || receive) {
            return Kicked::IDLE;
        }
        if send {
            add_one(&self.rung.tx);
        }
        if receive {
            add_one(&self.rung.rx);
        }
        let calls = u32::from(send) + u32::from(receive);
        self.rung.calls.store(self.rung.calls.load(Relaxed) + u64::from(calls), Relaxed);
        let outcome = match self.rung.state.load(Relaxed) {
            0 => Outcome::Woken,
            1 => Outcome::Down,
            _ => Outcome::Gone,
        };
        Kicked { calls, outcome }
    }

    fn check(&mut self) -> State {
        self.state = match self.rung.state.load(Relaxed) {
            0 => State::Up,
            1 => State::Down,
            _ => State::Gone,
        };
        self.state
    }

    fn state(&self) -> State {
        self.state
    }
}

/// What the wire did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireStats {
    /// Packets delivered to the rx ring.
    pub delivered: u64,
    /// Packets lost on the way in, as `Temper::lossy` says.
    pub lost_in: u64,
    /// Packets taken from the tx ring.
    pub sent: u64,
    /// Packets of these lost on the way out.
    pub lost_out: u64,
    /// Chunks completed.
    pub completed: u64,
    /// Descriptors refused: outside the UMEM, or empty.
    pub invalid: u64,
}

/// The kernel and the wire behind a [`SimPort`].
#[derive(Debug)]
pub struct Wire<'u> {
    umem: &'u Umem,
    fill: Consumer<u64, Arc<HeapRing>>,
    rx: Producer<Desc, Arc<HeapRing>>,
    tx: Consumer<Desc, Arc<HeapRing>>,
    completion: Producer<u64, Arc<HeapRing>>,
    config: Config,
    rung: Arc<Rung>,
    /// Rings of the bell already obeyed: sending, receiving.
    seen: (u32, u32),
    /// Packets on their way to the port.
    incoming: VecDeque<Vec<u8>>,
    /// Packets that left it.
    outgoing: VecDeque<Vec<u8>>,
    /// The fragments of a packet whose last one was not queued yet.
    partial: Vec<u8>,
    /// Completions held back.
    stragglers: Vec<u64>,
    /// Whether the poll that serves receiving, or sending, is to run.
    receive_due: bool,
    send_due: bool,
    random: u64,
    stats: WireStats,
}

impl Wire<'_> {
    /// Puts a packet on the way to the port and runs one step: on a prompt wire it has arrived, if there was a frame for it.
    pub fn inject(&mut self, packet: &[u8]) {
        self.queue(packet);
        self.step();
    }

    /// Puts a packet on the way to the port.
    pub fn queue(&mut self, packet: &[u8]) {
        self.incoming.push_back(packet.to_vec());
    }

    /// Runs one step and takes every packet that has left the port so far.
    pub fn collect(&mut self) -> Vec<Vec<u8>> {
        self.step();
        self.outgoing.drain(..).collect()
    }

    /// The fastest kernel there is, for benches: completes everything queued, and delivers up to `n` packets of `len`
    /// bytes whose contents are whatever their chunks hold. Returns how many of each.
    pub fn rush(&mut self, n: u32, len: u32) -> (u32, u32) {
        let Self { tx, completion, fill, rx, umem, .. } = self;
        let sent = tx.consume(completion.free(u32::MAX), |desc| {
            let _ = completion.push(desc.addr);
        });
        completion.commit();
        let start = u64::from(umem.layout().packet_start());
        let offset = if umem.layout().is_unaligned() { start << 48 } else { start };
        let delivered = fill.consume(n.min(rx.free(n)), |addr| {
            let _ = rx.push(Desc { addr: addr + offset, len, options: 0 });
        });
        rx.commit();
        (sent, delivered)
    }

    /// Packets on their way to the port.
    pub fn waiting(&self) -> usize {
        self.incoming.len()
    }

    /// What it did so far.
    pub fn stats(&self) -> &WireStats {
        &self.stats
    }

    /// System calls the port would have made.
    pub fn calls(&self) -> u64 {
        self.rung.calls.load(Relaxed)
    }

    /// Takes the interface down, away, or back up.
    pub fn set_state(&mut self, state: State) {
        let state = match state {
            State::Up => 0,
            State::Down => 1,
            State::Gone => 2,
        };
        self.rung.state.store(state, Relaxed);
    }

    /// Plays the kernel once: obeys kicks, receives and sends as the model has it.
    pub fn step(&mut self) {
        if self.rung.state.load(Relaxed) != 0 || self.chance(self.config.temper.late) {
            return;
        }
        let rung = (self.rung.tx.load(Relaxed), self.rung.rx.load(Relaxed));
        let kicked = (rung.0 != self.seen.0, rung.1 != self.seen.1);
        self.seen = rung;
        let arrived = !self.incoming.is_empty();
        match self.config.model {
            Model::Copy => {
                if kicked.0 {
                    self.send(32);
                }
                self.receive();
            }
            Model::I40e | Model::Igb => {
                self.receive_due |= kicked.0 || kicked.1 || arrived;
                if core::mem::take(&mut self.receive_due) {
                    let left = self.send(u32::MAX);
                    let received = self.receive();
                    // Work left keeps the poll running; igb's was seen to run again after it received.
                    self.receive_due = left || (received && self.config.model == Model::Igb);
                }
            }
            Model::Virtio => {
                self.send_due |= kicked.0;
                if core::mem::take(&mut self.send_due) {
                    self.send_due = self.send(u32::MAX);
                }
                self.receive();
            }
        }
        self.complete_stragglers();
    }

    /// Sends what the tx ring holds, up to `budget` packets. Whether some is left.
    fn send(&mut self, budget: u32) -> bool {
        let mut budget = budget;
        if self.config.temper.stingy > 0 {
            budget = budget.min(1 + self.draw() % self.config.temper.stingy);
        }
        // A completion needs a slot before its packet is taken.
        let room = self.completion.free(u32::MAX).saturating_sub(self.stragglers.len() as u32);
        let mut descs = Vec::new();
        self.tx.consume(budget.min(room), |desc| descs.push(desc));
        for desc in descs {
            self.send_one(desc);
        }
        self.completion.commit();
        let left = self.tx.available(1) > 0;
        if self.config.model != Model::Copy && self.config.need_wakeup {
            // While its poll will run again anyway, a driver need not be woken.
            let flag = if left && budget < u32::MAX { 0 } else { XDP_RING_NEED_WAKEUP };
            self.tx.memory().flags().store(flag, Relaxed);
        }
        left
    }

    fn send_one(&mut self, desc: Desc) {
        match self.umem.locate(desc) {
            Some(packet) if desc.len > 0 => {
                // SAFETY: K1, the chunk was sent to us and is not yet completed, so nobody else touches it.
                let bytes = unsafe { core::slice::from_raw_parts(packet.as_ptr(), desc.len as usize) };
                self.partial.extend_from_slice(bytes);
                if desc.options & Desc::CONTINUED == 0 {
                    let packet = core::mem::take(&mut self.partial);
                    self.stats.sent += 1;
                    if self.chance(self.config.temper.lossy) {
                        self.stats.lost_out += 1;
                    } else {
                        self.outgoing.push_back(packet);
                    }
                }
            }
            _ => self.stats.invalid += 1, // and completed raw, as the kernel does since 6.18.4x
        }
        if self.chance(self.config.temper.straggling) {
            self.stragglers.push(desc.addr);
        } else {
            self.complete(desc.addr);
        }
    }

    fn complete(&mut self, addr: u64) {
        // In copy mode an address comes back without its lowest bit (seen on 6.18.44).
        let addr = if self.config.model == Model::Copy { addr & !1 } else { addr };
        self.completion.push(addr).expect("room was seen to before the packet was taken");
        self.stats.completed += 1;
    }

    fn complete_stragglers(&mut self) {
        let mut kept = Vec::new();
        for addr in core::mem::take(&mut self.stragglers) {
            if self.chance(self.config.temper.straggling) {
                kept.push(addr);
            } else {
                self.complete(addr);
            }
        }
        self.stragglers = kept;
        self.completion.commit();
    }

    /// Delivers what is on its way, as far as there are frames and slots. Whether something was.
    fn receive(&mut self) -> bool {
        let limit = match self.config.temper.stingy {
            0 => u32::MAX,
            stingy => 1 + self.draw() % stingy,
        };
        let mut delivered = 0;
        while delivered < limit {
            let Some(packet) = self.incoming.front() else { break };
            let room = self.umem.layout().packet_max() as usize;
            let chunks = packet.len().div_ceil(room).max(1) as u32;
            if self.fill.available(chunks) < chunks || self.rx.free(chunks) < chunks {
                break;
            }
            let Some(packet) = self.incoming.pop_front() else { break };
            if self.chance(self.config.temper.lossy) {
                self.stats.lost_in += 1;
                continue;
            }
            for n in 0..chunks {
                let part = &packet[n as usize * room..packet.len().min((n as usize + 1) * room)];
                self.deliver(part, n + 1 < chunks);
            }
            self.stats.delivered += 1;
            delivered += 1;
        }
        self.rx.commit();
        if self.config.need_wakeup && self.config.model != Model::Copy {
            let starved = !self.incoming.is_empty() && self.fill.available(1) == 0;
            let flag = if starved { XDP_RING_NEED_WAKEUP } else { 0 };
            self.fill.memory().flags().store(flag, Relaxed);
        }
        delivered > 0
    }

    fn deliver(&mut self, part: &[u8], more: bool) {
        let mut chunk = None;
        self.fill.consume(1, |addr| chunk = Some(addr));
        let start = self.umem.layout().packet_start();
        let addr = match chunk.and_then(|addr| self.umem.chunk_of(addr)) {
            Some(chunk) if self.umem.layout().is_unaligned() => chunk | u64::from(start) << 48,
            Some(chunk) => chunk + u64::from(start),
            None => unreachable!("frames alone fill the ring, and each was checked"),
        };
        let desc = Desc { addr, len: part.len() as u32, options: if more { Desc::CONTINUED } else { 0 } };
        let place = self.umem.locate(desc).expect("a packet cut to fit");
        // SAFETY: K1, the chunk was lent to us to receive into, so nobody else touches it; the place holds the part.
        unsafe { place.copy_from_nonoverlapping(core::ptr::NonNull::from(part).cast(), part.len()) };
        self.rx.push(desc).expect("room was seen to before");
    }

    /// True so many times of a hundred.
    fn chance(&mut self, percent: u32) -> bool {
        percent > 0 && self.draw() % 100 < percent
    }

    fn draw(&mut self) -> u32 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 32) as u32
    }
}
