//! The loop without a kernel, as rows: turns of a worker over a port to nowhere, and over four rings on the heap with the fastest
//! kernel there is behind them, which is played between timed sections and touches no packet.

use crate::kept::Kept;
use crate::measure::{Rig, Row, timed};
use crate::null;
use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::mpsc;
use std::thread;
use xdp_core::ring::HeapRing;
use xdp_core::sim::{self, Config};
use xdp_core::wire::{EtherType, Ethernet, Ipv4, Protocol, Udp, UdpTemplate};
use xdp_core::{
    Frame, Layout, Pool, RegionOptions, RingReceiver, RingSizes, RingTransmitter, Stage, Umem, Verdict,
    Worker, cpu,
};

/// Of every packet, in bytes.
const LEN: u32 = 64;
/// Packets a turn handles.
pub const BURSTS: [u32; 8] = [1, 4, 8, 16, 32, 64, 128, 256];
/// Slots of each ring where few chunks circulate.
const SMALL: u32 = 256;
/// And where very many do: 128 MiB of chunks, a line of each in turn, 4 MiB of lines.
const LARGE: u32 = 32_768;

/// Sends back, untouched.
fn io(_: &mut Frame<'_>) -> Verdict {
    Verdict::Tx
}

/// To the pool.
fn discard(_: &mut Frame<'_>) -> Verdict {
    Verdict::Drop
}

/// Leaves it to the next stage.
fn pass(_: &mut Frame<'_>) -> Verdict {
    Verdict::Next
}

/// Sends back with the addresses exchanged.
fn mac_swap(frame: &mut Frame<'_>) -> Verdict {
    let Some((header, _)) = frame.split_first_chunk_mut::<12>() else { return Verdict::Drop };
    let (to, from) = header.split_at_mut(6);
    to.swap_with_slice(from);
    Verdict::Tx
}

/// Sends a UDP packet back, its lifetime renewed: both checksums stay right.
fn udp_echo(frame: &mut Frame<'_>) -> Verdict {
    let echoed = (|| {
        let mut ethernet = Ethernet::parse(frame)?;
        if ethernet.ether_type() != EtherType::IPV4 {
            return None;
        }
        ethernet.swap_addresses();
        let mut ipv4 = Ipv4::parse(ethernet.payload_mut())?;
        if ipv4.protocol() != Protocol::UDP || ipv4.is_fragment() {
            return None;
        }
        ipv4.swap_addresses();
        ipv4.set_ttl(64);
        Udp::parse(ipv4.payload_mut())?.swap_ports();
        Some(())
    })();
    if echoed.is_some() { Verdict::Tx } else { Verdict::Drop }
}

/// All rows.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for burst in BURSTS {
        rows.push(Row::new(format!("null-io/{burst}"), burst.into(), move || nowhere(burst, io)));
    }
    for burst in BURSTS {
        rows.push(Row::new(format!("null-macswap/{burst}"), burst.into(), move || nowhere(burst, mac_swap)));
    }
    for burst in BURSTS {
        rows.push(Row::new(format!("rings-io/{burst}"), burst.into(), move || warm(burst, io)));
    }
    for burst in BURSTS {
        rows.push(Row::new(format!("rings-macswap/{burst}"), burst.into(), move || warm(burst, mac_swap)));
    }
    let mut row = |name: &str, rig: fn() -> Rig| rows.push(Row::new(name, 64, rig));
    row("null-drop/64", || nowhere(64, discard));
    row("rings-drop/64", || warm(64, discard));
    row("rings-io-no-prefetch/64", || rings(64, SMALL, false, io));
    row("rings-macswap-no-prefetch/64", || rings(64, SMALL, false, mac_swap));
    row("rings-udp-echo/64", || warm(64, udp_echo));
    row("rings-1+macswap/64", || warm(64, pass.then(mac_swap)));
    row("rings-3+macswap/64", || warm(64, pass.then(pass).then(pass).then(mac_swap)));
    row("rings-7+macswap/64", || {
        let seven = pass.then(pass).then(pass).then(pass).then(pass).then(pass).then(pass);
        warm(64, seven.then(mac_swap))
    });
    row("rings-macswap-sampled/64", sampled);
    row("cold-io-no-prefetch/64", || rings(64, LARGE, false, io));
    row("cold-macswap/64", || rings(64, LARGE, true, mac_swap));
    row("cold-macswap-no-prefetch/64", || rings(64, LARGE, false, mac_swap));
    row("cold-udp-echo/64", || rings(64, LARGE, true, udp_echo));
    row("cold-udp-echo-no-prefetch/64", || rings(64, LARGE, false, udp_echo));
    row("pool-take+put/64", pool);
    rows.push(Row::new("idle-turn", 64, idle));
    rows
}

/// Memory whose chunks each hold a UDP packet where a received one begins.
fn filled(chunks: u32) -> Umem {
    let layout = Layout::new(2048, chunks).expect("a layout");
    let mut umem = Umem::new(layout, &RegionOptions::default()).expect("memory");
    let mut packet = [0; LEN as usize];
    UdpTemplate { packet_size: LEN as usize, ..UdpTemplate::default() }
        .write(&mut packet)
        .expect("a size there is");
    for mut frame in umem.take_frames().expect("once") {
        assert!(frame.write(&packet));
        let _ = frame;
    }
    assert!(umem.recover(), "nobody else has it");
    umem
}

fn nowhere<S: Stage + 'static>(burst: u32, stage: S) -> Rig {
    let make = |umem: &'static Umem| {
        let frames = umem.take_frames().expect("once");
        Worker::new([null::port(burst as usize)], stage, frames).burst(burst).offer(burst as usize)
    };
    // SAFETY: frames stay in the worker, which stays here.
    let mut worker = unsafe { Kept::new(filled(1024), make) };
    Box::new(move || {
        let mut handled = 0;
        let spent = timed(|| handled = worker.turn());
        assert_eq!(handled, burst);
        spent
    })
}

fn warm<S: Stage + 'static>(burst: u32, stage: S) -> Rig {
    rings(burst, SMALL.max(2 * burst), true, stage)
}

/// Over rings of `size` slots: so many chunks circulate, in turn.
fn rings<S: Stage + 'static>(burst: u32, size: u32, prefetch: bool, stage: S) -> Rig {
    let mut rings = Loop::over(burst, size, prefetch, stage);
    Box::new(move || rings.turn())
}

/// Only turns that the worker times: what they cost more than others, over 128, is what its accounting costs a turn.
fn sampled() -> Rig {
    let mut rings = Loop::over(64, SMALL, true, mac_swap);
    Box::new(move || {
        while rings.worker.counters().turns % 128 != 0 {
            rings.wire.rush(64, LEN);
            rings.worker.turn();
        }
        rings.turn()
    })
}

/// Turns with nothing to do, 64 of them.
fn idle() -> Rig {
    let mut rings = Loop::over(64, SMALL, true, mac_swap);
    rings.worker.turn();
    Box::new(move || {
        let mut handled = 0;
        let spent = timed(|| (0..64).for_each(|_| handled += rings.worker.turn()));
        assert_eq!(handled, 0);
        spent
    })
}

/// Frames out of a pool and back, a burst at a time.
fn pool() -> Rig {
    let make = |umem: &'static Umem| Pool::new(umem.take_frames().expect("once"));
    // SAFETY: what is taken goes back within the section.
    let mut pool = unsafe { Kept::new(filled(1024), make) };
    let mut held: Vec<Frame<'static>> = Vec::with_capacity(64);
    Box::new(move || {
        let spent = timed(|| {
            held.extend((0..64).map_while(|_| pool.take()));
            held.drain(..).for_each(|frame| pool.put(frame));
        });
        assert_eq!(pool.len(), 1024);
        spent
    })
}

/// A worker over four rings, and the kernel behind them.
struct Loop<S> {
    worker: SimWorker<S>,
    wire: sim::Wire<'static>,
    burst: u32,
}

type SimWorker<S> = Worker<
    'static,
    RingReceiver<'static, Arc<HeapRing>>,
    RingTransmitter<'static, Arc<HeapRing>>,
    sim::Bell,
    S,
    1,
>;

impl<S: Stage + 'static> Loop<S> {
    fn over(burst: u32, size: u32, prefetch: bool, stage: S) -> Kept<Self> {
        let make = |umem: &'static Umem| {
            let rings = RingSizes { fill: size, rx: size, tx: size, completion: size };
            let (mut port, wire) = sim::link_with(umem, &Config { rings, ..Config::default() });
            port.rx.set_prefetch(prefetch);
            let frames = umem.take_frames().expect("once");
            let worker = Worker::new([port], stage, frames).burst(burst).offer(size as usize);
            Self { worker, wire, burst }
        };
        // SAFETY: frames stay between the worker and the wire, which stay together.
        let mut rings = unsafe { Kept::new(filled(2 * size + 64), make) };
        rings.worker.turn();
        (0..2 * size / burst).for_each(|_| {
            rings.turn();
        });
        rings
    }

    /// The kernel delivers a burst, and a turn handles it, timed.
    fn turn(&mut self) -> u64 {
        self.wire.rush(self.burst, LEN);
        let mut handled = 0;
        let spent = timed(|| handled = self.worker.turn());
        assert_eq!(handled, self.burst);
        spent
    }
}

/// A thread on another core, which does one thing after the other.
#[derive(Debug)]
pub struct Other(mpsc::Sender<Box<dyn FnOnce() + Send>>);

impl Other {
    /// On the first core this thread may run on, if there are two. To be made before this thread is pinned.
    pub fn new() -> Option<Self> {
        let first = *cpu::allowed().ok().filter(|cores| cores.len() > 1)?.first()?;
        let (jobs, to_do) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
        thread::spawn(move || {
            if let Err(error) = cpu::pin(first) {
                eprintln!("the other thread is not pinned: {error}");
            }
            to_do.into_iter().for_each(|job| job());
        });
        Some(Self(jobs))
    }
}

/// Frames handed to another core and back, by two queues of rtrb, in bursts of `burst`: a section is 64 bursts, both ways counted.
pub fn hand_off(other: &Other, burst: u32) -> Row {
    let jobs = other.0.clone();
    const BURSTS: u32 = 64;
    Row::new(format!("hand-off/{burst}"), u64::from(2 * BURSTS * burst), move || {
        // Never given back: the other thread may still hold some of it when this row is done.
        let umem: &'static Umem = Box::leak(Box::new(filled(1024)));
        let mut pool = Pool::new(umem.take_frames().expect("once"));
        let (mut there, mut from_here) = rtrb::RingBuffer::new(256);
        let (mut back, mut from_there) = rtrb::RingBuffer::new(256);
        let stop = Arc::new(Stop::default());
        let stopped = stop.0.clone();
        let pass = move || {
            while !stopped.load(Relaxed) {
                pass_on(&mut from_here, &mut back);
            }
        };
        jobs.send(Box::new(pass)).expect("the other thread lives as long as the program");
        Box::new(move || {
            let _ = &stop;
            let (mut sent, mut received) = (0, 0);
            timed(|| {
                while received < BURSTS * burst {
                    let ready = sent < BURSTS * burst && pool.len() >= burst as usize;
                    if let (true, Ok(chunk)) = (ready, there.write_chunk_uninit(burst as usize)) {
                        sent += chunk.fill_from_iter((0..burst).map_while(|_| pool.take())) as u32;
                    }
                    if let Ok(chunk) = from_there.read_chunk(from_there.slots()) {
                        received += chunk.len() as u32;
                        chunk.into_iter().for_each(|frame| pool.put(frame));
                    }
                }
            })
        })
    })
}

/// Stops the other thread when the rig goes.
#[derive(Default)]
struct Stop(Arc<AtomicBool>);

impl Drop for Stop {
    fn drop(&mut self) {
        self.0.store(true, Relaxed);
    }
}

fn pass_on<'u>(from: &mut rtrb::Consumer<Frame<'u>>, to: &mut rtrb::Producer<Frame<'u>>) {
    let n = from.slots().min(to.slots());
    if n == 0 {
        return core::hint::spin_loop();
    }
    if let (Ok(read), Ok(write)) = (from.read_chunk(n), to.write_chunk_uninit(n)) {
        write.fill_from_iter(read);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdp_core::wire::{Finished, Sum, finish_checksum};

    #[test]
    fn the_echo_that_is_measured_answers_with_right_checksums() {
        let mut rings = Loop::over(64, SMALL, true, udp_echo);
        let mut ping = [0; LEN as usize];
        UdpTemplate { packet_size: LEN as usize, ..UdpTemplate::default() }.write(&mut ping).unwrap();
        rings.wire.collect();
        rings.worker.turn();
        rings.wire.collect();
        rings.wire.inject(&ping);
        assert_eq!(rings.worker.turn(), 1);
        let [mut pong] = <[Vec<u8>; 1]>::try_from(rings.wire.collect()).unwrap();
        assert_eq!((&pong[..6], &pong[6..12]), (&ping[6..12], &ping[..6]));
        assert_eq!((&pong[26..30], &pong[30..34]), (&ping[30..34], &ping[26..30]));
        assert_eq!((&pong[34..36], &pong[36..38]), (&ping[36..38], &ping[34..36]));
        assert_eq!(Sum::of(&pong[14..34]).checksum(), 0, "the header's");
        let udp = Ipv4::view(&pong[14..]).unwrap();
        let sum = udp.pseudo().sum(Protocol::UDP, udp.payload().len() as u16);
        assert_eq!(sum.fold(), !Sum::of(udp.payload()).fold(), "the datagram's");
        assert_eq!(finish_checksum(&mut pong), Finished::NotNeeded);
    }

    #[test]
    fn every_row_handles_what_it_says() {
        for row in rows() {
            let mut rig = (row.rig)();
            (0..300).for_each(|_| assert!(rig() < 1 << 40, "{}", row.name));
        }
    }
}
