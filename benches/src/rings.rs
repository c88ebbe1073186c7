//! Ring operations, ours and others', as rows.
//!
//! Two kinds, never in one table: [`Bare`] moves descriptors as integers; [`Owning`] moves packets as each library's own owner of
//! them does, free list included.

use crate::kept::Kept;
use crate::kernel::{self, CHUNKS, Kernel, LEN, Which};
use crate::measure::{Rig, Row, timed};
use core::hint::black_box;
use std::sync::OnceLock;
use xdp_core::bench::{self, RawRing};
use xdp_core::ring::{Consumer, Producer};
use xdp_core::{
    Burst, Desc, Layout, Pool, Receive, RegionOptions, RingReceiver, RingTransmitter, Transmit, Umem,
};

/// Entries in a timed section: half a ring.
const SECTION: u32 = 1024;
/// Descriptors an operation moves at a time.
pub const BURSTS: [u32; 4] = [1, 8, 32, 64];

/// The near ends of four rings, of descriptors. There is room, or there are entries, for what is asked, where not said otherwise.
pub trait Bare {
    /// Lends chunks and publishes them.
    fn fill(&mut self, addresses: &[u64]);
    /// Takes up to `n` received packets; their addresses and lengths go into `sum`. How many.
    fn rx(&mut self, n: u32, sum: &mut u64) -> u32;
    /// Queues packets and publishes them; how many there was room for.
    fn tx(&mut self, packets: &[Desc]) -> u32;
    /// Takes up to `n` completed addresses. How many.
    fn completion(&mut self, n: u32, sum: &mut u64) -> u32;
    /// Received chunks go back to receive into.
    fn recycle(&mut self, n: u32) -> u32;
    /// Received packets are queued to be sent, completed chunks go back to receive into.
    fn forward(&mut self, n: u32) -> u32;
    /// Whether the tx ring wants a wake-up; `None` where the library does not say.
    fn needs_wakeup(&self) -> Option<bool>;
}

/// A port as a library has it, with what it keeps free frames in. All of them are free at first.
pub trait Owning {
    /// Lends `n` free frames and publishes them.
    fn fill(&mut self, n: u32);
    /// Receives `n` packets and frees them.
    fn rx(&mut self, n: u32) -> u32;
    /// Queues `n` packets of 64 bytes in free frames and publishes them.
    fn tx(&mut self, n: u32);
    /// Takes `n` completed frames back and frees them.
    fn completion(&mut self, n: u32) -> u32;
    /// Takes `n` completed frames back, lends `n`, queues `n` received packets to be sent, and publishes all that.
    fn forward(&mut self, n: u32) -> u32;
}

/// Our ends, bare.
#[derive(Debug)]
pub struct Ours {
    fill: Producer<u64, RawRing>,
    rx: Consumer<Desc, RawRing>,
    tx: Producer<Desc, RawRing>,
    completion: Consumer<u64, RawRing>,
}

impl Ours {
    /// Over `rings`.
    pub fn new(rings: kernel::Rings) -> Self {
        let [fill, rx, tx, completion] = rings.map(|ring| ring.raw());
        // SAFETY: R4, one end of each kind over rings just made; integers are no frames.
        unsafe {
            Self {
                fill: bench::producer(fill),
                rx: bench::consumer(rx),
                tx: bench::producer(tx),
                completion: bench::consumer(completion),
            }
        }
    }
}

impl Bare for Ours {
    fn fill(&mut self, addresses: &[u64]) {
        self.fill.push_slice(addresses);
        self.fill.commit();
    }

    fn rx(&mut self, n: u32, sum: &mut u64) -> u32 {
        self.rx.consume(n, |desc| *sum = sum.wrapping_add(desc.addr + u64::from(desc.len)))
    }

    fn tx(&mut self, packets: &[Desc]) -> u32 {
        self.tx.push_slice(packets);
        self.tx.commit()
    }

    fn completion(&mut self, n: u32, sum: &mut u64) -> u32 {
        self.completion.consume(n, |addr| *sum = sum.wrapping_add(addr))
    }

    fn recycle(&mut self, n: u32) -> u32 {
        let mut writer = self.fill.writer(n);
        let taken = self.rx.consume(n, |desc| {
            let _ = writer.push_with(desc.addr & !(kernel::CHUNK - 1), Ok);
        });
        drop(writer);
        self.fill.commit();
        taken
    }

    fn forward(&mut self, n: u32) -> u32 {
        let mut writer = self.fill.writer(n);
        self.completion.consume(n, |addr| {
            let _ = writer.push_with(addr & !(kernel::CHUNK - 1), Ok);
        });
        drop(writer);
        self.fill.commit();
        let mut writer = self.tx.writer(n);
        let taken = self.rx.consume(n, |desc| {
            let _ = writer.push_with(desc, Ok);
        });
        drop(writer);
        self.tx.commit();
        taken
    }

    fn needs_wakeup(&self) -> Option<bool> {
        Some(self.tx.needs_wakeup())
    }
}

/// The halves of our port, and a pool.
#[derive(Debug)]
pub struct OurPort {
    rx: RingReceiver<'static, RawRing>,
    tx: RingTransmitter<'static, RawRing>,
    pool: Pool<'static>,
}

impl OurPort {
    /// Over `rings`, with the frames of `umem`.
    pub fn new(umem: &'static Umem, rings: kernel::Rings) -> Self {
        // SAFETY: R4, one end of each kind over rings just made; K1, the kernel played here hands back what it took.
        let (rx, tx) = unsafe { bench::halves(umem, rings.map(|ring| ring.raw())) };
        Self { rx, tx, pool: Pool::new(umem.take_frames().expect("once")) }
    }
}

impl Owning for OurPort {
    fn fill(&mut self, n: u32) {
        let mut offers = self.rx.offers(n);
        for frame in (0..n).map_while(|_| self.pool.take()) {
            let _ = offers.put(frame);
        }
        drop(offers);
        self.rx.commit();
    }

    fn rx(&mut self, n: u32) -> u32 {
        self.rx.receive(n, |frame| self.pool.put(frame))
    }

    fn tx(&mut self, n: u32) {
        let mut sends = self.tx.sends();
        for mut frame in (0..n).map_while(|_| self.pool.take()) {
            frame.set_len(LEN as usize);
            let _ = sends.put(frame);
        }
        drop(sends);
        self.tx.commit();
    }

    fn completion(&mut self, _: u32) -> u32 {
        self.tx.reap(|frame| self.pool.put(frame))
    }

    fn forward(&mut self, n: u32) -> u32 {
        let mut offers = self.rx.offers(n);
        self.tx.reap(|frame| {
            if let Err(frame) = offers.put(frame) {
                self.pool.put(frame);
            }
        });
        drop(offers);
        self.rx.commit();
        let mut sends = self.tx.sends();
        let taken = self.rx.receive(n, |frame| {
            if let Err(frame) = sends.put(frame) {
                self.pool.put(frame);
            }
        });
        drop(sends);
        self.tx.commit();
        taken
    }
}

impl<O: Owning> Owning for Kept<O> {
    #[inline]
    fn fill(&mut self, n: u32) {
        (**self).fill(n);
    }

    #[inline]
    fn rx(&mut self, n: u32) -> u32 {
        (**self).rx(n)
    }

    #[inline]
    fn tx(&mut self, n: u32) {
        (**self).tx(n);
    }

    #[inline]
    fn completion(&mut self, n: u32) -> u32 {
        (**self).completion(n)
    }

    #[inline]
    fn forward(&mut self, n: u32) -> u32 {
        (**self).forward(n)
    }
}

/// A UMEM of [`CHUNKS`] chunks.
pub fn umem() -> Umem {
    let layout = Layout::new(kernel::CHUNK as u32, CHUNKS).expect("a layout");
    Umem::new(layout, &RegionOptions::default()).expect("memory")
}

/// One that all bare rings are registered with, as nobody touches its chunks.
pub fn shared_umem() -> &'static Umem {
    static UMEM: OnceLock<Umem> = OnceLock::new();
    UMEM.get_or_init(umem)
}

/// Our port over `rings`, with memory of its own.
pub fn our_port(umem: Umem, rings: kernel::Rings) -> Kept<OurPort> {
    // SAFETY: the halves and the pool stay in the port, whose operations move no frame out of it.
    unsafe { Kept::new(umem, |umem| OurPort::new(umem, rings)) }
}

/// Rows of bare operations. `make` gives the near ends and the kernel behind them, with indices that begin where it is told;
/// none where the library cannot begin there.
pub fn bare<B: Bare + 'static>(
    who: &str,
    make: impl Fn(u32) -> Option<(B, Kernel)> + Copy + 'static,
) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name: String, rig: Box<dyn Fn(B, Kernel) -> Rig>, first: u32| {
        if make(first).is_none() {
            return;
        }
        rows.push(Row::new(format!("{name}/{who}"), SECTION.into(), move || {
            let (rings, kernel) = make(first).expect("it was made before");
            rig(rings, kernel)
        }));
    };
    for burst in BURSTS {
        row(format!("fill/{burst}"), Box::new(move |rings, kernel| fill(rings, kernel, burst)), 0);
    }
    for burst in BURSTS {
        row(format!("rx/{burst}"), Box::new(move |rings, kernel| rx(rings, kernel, burst)), 0);
    }
    for burst in BURSTS {
        row(format!("tx/{burst}"), Box::new(move |rings, kernel| tx(rings, kernel, burst)), 0);
    }
    for burst in BURSTS {
        row(
            format!("completion/{burst}"),
            Box::new(move |rings, kernel| completion(rings, kernel, burst)),
            0,
        );
    }
    row("empty_poll".into(), Box::new(empty_poll), 0);
    row("full_push".into(), Box::new(full_push), 0);
    if make(0).is_some_and(|(rings, _)| rings.needs_wakeup().is_some()) {
        row("wakeup_check".into(), Box::new(wakeup_check), 0);
    }
    row("recycle/64".into(), Box::new(|rings, kernel| recycle(rings, kernel, 64)), 0);
    row("forward/64".into(), Box::new(|rings, kernel| forward(rings, kernel, 64)), 0);
    row("wrap/32".into(), Box::new(|rings, kernel| tx(rings, kernel, 32)), u32::MAX - 100);
    rows
}

/// What a timed section took in must be what was handed over.
fn check(sum: u64, addresses: &[u64], len: u32) {
    assert_eq!(
        sum,
        addresses.iter().map(|addr| addr + u64::from(len)).sum::<u64>(),
        "everything came through"
    );
}

fn fill<B: Bare + 'static>(mut rings: B, mut kernel: Kernel, burst: u32) -> Rig {
    let addresses = kernel::addresses(SECTION);
    Box::new(move || {
        let spent = timed(|| addresses.chunks_exact(burst as usize).for_each(|burst| rings.fill(burst)));
        assert_eq!(kernel.take(Which::Fill), addresses);
        spent
    })
}

fn rx<B: Bare + 'static>(mut rings: B, mut kernel: Kernel, burst: u32) -> Rig {
    let addresses = kernel::addresses(SECTION);
    Box::new(move || {
        kernel.lay(Which::Rx, &addresses);
        let (mut sum, mut taken) = (0, 0);
        let spent = timed(|| {
            for _ in 0..SECTION / burst {
                kernel.publish(Which::Rx, burst);
                taken += rings.rx(burst, &mut sum);
            }
        });
        assert_eq!(taken, SECTION);
        check(sum, &addresses, LEN);
        spent
    })
}

fn tx<B: Bare + 'static>(mut rings: B, mut kernel: Kernel, burst: u32) -> Rig {
    let (packets, addresses) = (kernel::descriptors(SECTION), kernel::addresses(SECTION));
    Box::new(move || {
        let spent = timed(|| {
            packets.chunks_exact(burst as usize).for_each(|burst| {
                rings.tx(burst);
            });
        });
        assert_eq!(kernel.take(Which::Tx), addresses);
        spent
    })
}

fn completion<B: Bare + 'static>(mut rings: B, mut kernel: Kernel, burst: u32) -> Rig {
    let addresses = kernel::addresses(SECTION);
    Box::new(move || {
        kernel.lay(Which::Completion, &addresses);
        let (mut sum, mut taken) = (0, 0);
        let spent = timed(|| {
            for _ in 0..SECTION / burst {
                kernel.publish(Which::Completion, burst);
                taken += rings.completion(burst, &mut sum);
            }
        });
        assert_eq!(taken, SECTION);
        check(sum, &addresses, 0);
        spent
    })
}

fn empty_poll<B: Bare + 'static>(mut rings: B, kernel: Kernel) -> Rig {
    Box::new(move || {
        let _ = &kernel;
        let (mut sum, mut taken) = (0, 0);
        let spent = timed(|| (0..SECTION).for_each(|_| taken += rings.rx(64, &mut sum)));
        assert_eq!(taken, 0);
        spent
    })
}

fn full_push<B: Bare + 'static>(mut rings: B, kernel: Kernel) -> Rig {
    let packets = kernel::descriptors(kernel::RING);
    packets.chunks(64).for_each(|burst| {
        rings.tx(burst);
    });
    Box::new(move || {
        let _ = &kernel;
        let mut queued = 0;
        let spent = timed(|| (0..SECTION).for_each(|_| queued += rings.tx(black_box(&packets[..1]))));
        assert_eq!(queued, 0);
        spent
    })
}

fn wakeup_check<B: Bare + 'static>(rings: B, kernel: Kernel) -> Rig {
    Box::new(move || {
        let _ = &kernel;
        let mut wanted = 0;
        let spent = timed(|| {
            (0..SECTION).for_each(|_| wanted += u32::from(black_box(&rings).needs_wakeup() == Some(true)))
        });
        assert!(wanted == 0 || wanted == SECTION);
        spent
    })
}

fn recycle<B: Bare + 'static>(mut rings: B, mut kernel: Kernel, burst: u32) -> Rig {
    let addresses = kernel::addresses(SECTION);
    let chunks: Vec<u64> = addresses.iter().map(|addr| addr - 256).collect();
    Box::new(move || {
        kernel.lay(Which::Rx, &addresses);
        let mut taken = 0;
        let spent = timed(|| {
            for _ in 0..SECTION / burst {
                kernel.publish(Which::Rx, burst);
                taken += rings.recycle(burst);
            }
        });
        assert_eq!((taken, kernel.take(Which::Fill)), (SECTION, chunks.clone()));
        spent
    })
}

fn forward<B: Bare + 'static>(mut rings: B, mut kernel: Kernel, burst: u32) -> Rig {
    let addresses = kernel::addresses(SECTION);
    let chunks: Vec<u64> = addresses.iter().map(|addr| addr - 256).collect();
    Box::new(move || {
        kernel.lay(Which::Rx, &addresses);
        kernel.lay(Which::Completion, &addresses);
        let mut taken = 0;
        let spent = timed(|| {
            for _ in 0..SECTION / burst {
                kernel.publish(Which::Completion, burst);
                kernel.publish(Which::Rx, burst);
                taken += rings.forward(burst);
            }
        });
        assert_eq!(
            (taken, kernel.take(Which::Fill), kernel.take(Which::Tx)),
            (SECTION, chunks.clone(), addresses.clone())
        );
        spent
    })
}

/// Rows of operations that move owned packets.
pub fn owning<O: Owning + 'static>(who: &str, make: impl Fn() -> (O, Kernel) + Copy + 'static) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut row = |name: String, rig: Box<dyn Fn(O, Kernel) -> Rig>| {
        rows.push(Row::new(format!("{name}/{who}"), SECTION.into(), move || {
            let (port, kernel) = make();
            rig(port, kernel)
        }));
    };
    for burst in BURSTS {
        row(format!("fill/{burst}"), Box::new(move |port, kernel| owned_receive(port, kernel, burst, true)));
    }
    for burst in BURSTS {
        row(format!("rx/{burst}"), Box::new(move |port, kernel| owned_receive(port, kernel, burst, false)));
    }
    for burst in BURSTS {
        row(format!("tx/{burst}"), Box::new(move |port, kernel| owned_send(port, kernel, burst, true)));
    }
    for burst in BURSTS {
        row(
            format!("completion/{burst}"),
            Box::new(move |port, kernel| owned_send(port, kernel, burst, false)),
        );
    }
    for burst in BURSTS {
        row(format!("forward/{burst}"), Box::new(move |port, kernel| owned_forward(port, kernel, burst)));
    }
    rows
}

/// A section's worth is lent, taken by the kernel, and received: one of the two halves of that is what is timed.
fn owned_receive<O: Owning + 'static>(mut port: O, mut kernel: Kernel, burst: u32, lending: bool) -> Rig {
    Box::new(move || {
        let lent = timed_if(lending, || (0..SECTION / burst).for_each(|_| port.fill(burst)));
        let chunks = received(kernel.take(Which::Fill));
        assert_eq!(chunks.len(), SECTION as usize);
        kernel.lay(Which::Rx, &chunks);
        let mut taken = 0;
        let spent = timed_if(!lending, || {
            for _ in 0..SECTION / burst {
                kernel.publish(Which::Rx, burst);
                taken += port.rx(burst);
            }
        });
        assert_eq!(taken, SECTION);
        if lending { lent } else { spent }
    })
}

/// As above, of what is sent and completed.
fn owned_send<O: Owning + 'static>(mut port: O, mut kernel: Kernel, burst: u32, sending: bool) -> Rig {
    Box::new(move || {
        let sent = timed_if(sending, || (0..SECTION / burst).for_each(|_| port.tx(burst)));
        let packets = kernel.take(Which::Tx);
        assert_eq!(packets.len(), SECTION as usize);
        kernel.lay(Which::Completion, &packets);
        let mut taken = 0;
        let spent = timed_if(!sending, || {
            for _ in 0..SECTION / burst {
                kernel.publish(Which::Completion, burst);
                taken += port.completion(burst);
            }
        });
        assert_eq!(taken, SECTION);
        if sending { sent } else { spent }
    })
}

fn owned_forward<O: Owning + 'static>(mut port: O, mut kernel: Kernel, burst: u32) -> Rig {
    for _ in 0..SECTION / burst {
        port.fill(burst);
        port.tx(burst);
    }
    Box::new(move || {
        let (chunks, packets) = (received(kernel.take(Which::Fill)), kernel.take(Which::Tx));
        assert_eq!((chunks.len(), packets.len()), (SECTION as usize, SECTION as usize));
        kernel.lay(Which::Rx, &chunks);
        kernel.lay(Which::Completion, &packets);
        let mut taken = 0;
        let spent = timed(|| {
            for _ in 0..SECTION / burst {
                kernel.publish(Which::Completion, burst);
                kernel.publish(Which::Rx, burst);
                taken += port.forward(burst);
            }
        });
        assert_eq!(taken, SECTION);
        spent
    })
}

/// Where packets received into these chunks begin.
fn received(chunks: Vec<u64>) -> Vec<u64> {
    chunks.into_iter().map(|addr| (addr & !(kernel::CHUNK - 1)) + 256).collect()
}

/// Runs `f`, as the timed section or not.
fn timed_if(wanted: bool, f: impl FnOnce()) -> u64 {
    if wanted {
        return timed(f);
    }
    f();
    0
}
