//! Worker: turns the crank.
#![forbid(unsafe_code)]

use crate::clock::ticks;
use crate::far::{Far, Outcome, State, Want};
use crate::port::{Burst, Port, Receive, Transmit};
use crate::stage::{Held, Outbox, Stage, Verdict};
use core::array::from_fn;
use core::sync::atomic::{AtomicBool, Ordering::Relaxed};
use xdp_umem::sys::{self, PollFd};
use xdp_umem::{Frames, Pool};

/// What a worker does with a turn that handled nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Idle {
    /// Turns again at once.
    #[default]
    Spin,
    /// Lets the core's other thread have it for a moment (`pause`), then turns again.
    Pause,
    /// Sleeps in poll(2) until a packet arrives or a stage is due. A system call and a wake-up a packet at low rates.
    Poll,
    /// Spins for 4,096 idle turns, then sleeps as [`Poll`](Self::Poll) does.
    Adaptive,
}

/// What a worker does when a port has no room to send.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overload {
    /// Drops the packet and counts it: every port keeps being served.
    #[default]
    Drop,
    /// Receives no more than every port has room for: what cannot be sent waits on the wire.
    Limit,
}

/// What a worker counts. A packet is counted once. What each means and what to do about it is in ARCHITECTURE.md.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Turns of the loop.
    pub turns: u64,
    /// Turns that handled no packet.
    pub turns_idle: u64,
    /// Packets received and judged; not those that a stage panicked at.
    pub received: u64,
    /// Received packets that a stage dropped, or that no stage had a verdict on.
    pub dropped: u64,
    /// Received packets dropped as the port they were to leave by had no room (or would not take them).
    pub tx_full: u64,
    /// Received packets dropped as they were to leave by a port that is not there.
    pub no_such_port: u64,
    /// Packets of the stages' own making, queued.
    pub originated: u64,
    /// Packets of the stages' own making that found no frame or no room.
    pub refused: u64,
    /// Frames finished by the far side.
    pub finished: u64,
    /// System calls that woke a far side.
    pub kicks: u64,
    /// Kicks that could not move everything (EAGAIN, ENOBUFS): the rest waits.
    pub kicks_again: u64,
    /// Packets the device dropped during a kick (EBUSY).
    pub kicks_dropped: u64,
    /// Kicks of an interface that is down (ENETDOWN).
    pub kicks_down: u64,
    /// Kicks of an interface that is gone (ENXIO), and kicks with an errno not met before.
    pub kicks_failed: u64,
    /// Times a worker slept in poll(2).
    pub sleeps: u64,
    /// Ticks of the turns sampled, one in 128.
    pub cycles: Cycles,
}

impl Counters {
    /// Received packets that were queued to be sent.
    pub const fn forwarded(&self) -> u64 {
        self.received - self.dropped - self.tx_full - self.no_such_port
    }

    /// System calls: kicks and sleeps.
    pub const fn system_calls(&self) -> u64 {
        self.kicks + self.sleeps
    }
}

/// Where the ticks of the sampled turns went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cycles {
    /// Turns sampled.
    pub turns: u64,
    /// Packets those turns handled.
    pub packets: u64,
    /// In turns that handled packets, but for their kicks.
    pub busy: u64,
    /// In turns that handled none, but for their kicks.
    pub idle: u64,
    /// In kicks that made a system call.
    pub kick: u64,
}

/// One turn in so many is timed: two stamps cost about as much as three packets.
const SAMPLE: u64 = 128;
/// Idle turns between two looks at whether a far side is still there.
const CHECK: u64 = 1 << 16;
/// The longest sleep, in nanoseconds: a stop is noticed so soon.
const SLEEP_MAX: u64 = 100_000_000;
/// A stage due so soon, in nanoseconds, is waited for awake: a sleep is not that exact.
const AWAKE: u64 = 80_000;
/// Idle turns before an adaptive worker sleeps.
const SPINS: u64 = 4096;

/// Runs stages over ports: the loop.
///
/// It owns the ports' halves, the stage and the free frames; nothing is allocated once it is made. One thread turns
/// it, any thread, as long as it is one at a time.
///
/// ```
/// use xdp_core::{Layout, Umem, Verdict, Worker, sim};
/// let umem = Umem::heap(Layout::new(2048, 512)?);
/// let (port, mut wire) = sim::link(&umem); // for a real one: Registration::bind
/// let reflect = |frame: &mut xdp_core::Frame<'_>| { frame.swap(0, 6); Verdict::Tx };
/// let mut worker = Worker::new([port], reflect, umem.take_frames().unwrap());
/// worker.turn(); // lends frames to receive into
/// wire.inject(b"ping..PING..");
/// worker.turn();
/// assert_eq!(wire.collect(), [b"Ping..pING.."]);
/// assert!(worker.is_conserved());
/// # Ok::<(), xdp_core::LayoutError>(())
/// ```
#[derive(Debug)]
pub struct Worker<'u, R, T, F, S, const N: usize> {
    rx: [R; N],
    tx: [T; N],
    far: [F; N],
    stage: S,
    pool: Pool<'u>,
    burst: u32,
    /// Frames each port keeps lent to receive into.
    offered: [usize; N],
    /// Chunks that are ours or lent by us, always.
    frames: usize,
    idle: Idle,
    overload: Overload,
    /// Ticks a nanosecond, 32.32, for sleeping until a stage is due.
    ns_per_tick: f64,
    idle_since: u64,
    /// Nanoseconds slept in vain since the far sides were last asked whether they are there.
    quiet: u64,
    counters: Counters,
}

impl<'u, R, T, F, S, const N: usize> Worker<'u, R, T, F, S, N>
where
    R: Receive<'u>,
    T: Transmit<'u>,
    F: Far,
    S: Stage,
{
    /// A worker with bursts of 64 that spins when idle, drops what cannot be sent, and keeps as many frames offered on
    /// each port as its fill ring holds and the frames allow.
    ///
    /// Panics with fewer frames than *ports x (1 offered) + what the tx rings hold + a burst of one*: then a full tx ring would
    /// leave nothing to receive into.
    pub fn new(ports: [Port<R, T, F>; N], stage: S, frames: Frames<'u>) -> Self {
        let mut rx = [const { None }; N];
        let mut tx = [const { None }; N];
        let mut far = [const { None }; N];
        for (i, port) in ports.into_iter().enumerate() {
            (rx[i], tx[i], far[i]) = (Some(port.rx), Some(port.tx), Some(port.far));
        }
        let rx = rx.map(|half: Option<R>| half.expect("one a port"));
        let tx = tx.map(|half: Option<T>| half.expect("one a port"));
        let far = far.map(|far: Option<F>| far.expect("one a port"));

        let pool = Pool::new(frames);
        let frames = pool.len();
        let sending: usize = tx.iter().map(T::capacity).sum();
        let needed = N + sending + 1;
        assert!(
            frames >= needed,
            "{frames} frames are too few: {N} offered + {sending} in tx rings + 1 in hand = {needed}"
        );
        let share = (frames - sending - 1) / N.max(1);
        let offered = from_fn(|port| rx[port].capacity().min(share));
        Self {
            rx,
            tx,
            far,
            stage,
            pool,
            burst: 64,
            offered,
            frames,
            idle: Idle::Spin,
            overload: Overload::Drop,
            ns_per_tick: 0.0,
            idle_since: 0,
            quiet: 0,
            counters: Counters::default(),
        }
    }

    /// Receives up to so many packets a port a turn. At least 1.
    pub fn burst(mut self, packets: u32) -> Self {
        self.burst = packets.max(1);
        self
    }

    /// Keeps at most `frames` frames offered on each port: few stay in the cache, many outlast a stall.
    pub fn offer(mut self, frames: usize) -> Self {
        self.offered.iter_mut().for_each(|offered| *offered = (*offered).min(frames.max(1)));
        self
    }

    /// What to do with idle turns. `clock` turns the ticks a stage is due at into a time to sleep.
    pub fn idle(mut self, idle: Idle, clock: &crate::Clock) -> Self {
        self.idle = idle;
        self.ns_per_tick = 1e9 / clock.frequency() as f64;
        self
    }

    /// What to do when a port has no room.
    pub fn overload(mut self, overload: Overload) -> Self {
        self.overload = overload;
        self
    }

    /// Once round: for each port take finished frames back, lend free ones, hand what arrived to the stage and queue what is to
    /// leave; then wake whoever needs waking. Returns how many packets were handled.
    ///
    /// Should a stage panic, the packet it held is dropped, and the next turn goes on with the one after it.
    #[inline]
    pub fn turn(&mut self) -> u32 {
        let sampled = self.counters.turns % SAMPLE == 0;
        let start = if sampled { ticks() } else { 0 };
        let handled = self.serve();
        debug_assert!(self.is_conserved(), "no frame is lost");
        let served = if sampled { ticks() } else { 0 };
        let kicks = self.counters.kicks;
        self.kick();
        self.counters.turns += 1;
        if handled == 0 {
            self.counters.turns_idle += 1;
        }
        if sampled {
            self.sample(handled, start, served, self.counters.kicks > kicks);
        }
        handled
    }

    #[inline]
    fn serve(&mut self) -> u32 {
        let Self { rx, tx, stage, pool, burst, offered, counters, overload, .. } = self;
        let mut outbox = Outbox { pool, tx: &mut tx[..], sent: 0, refused: 0 };
        stage.tick(&mut outbox);
        counters.originated += outbox.sent;
        counters.refused += outbox.refused;

        let mut handled = 0;
        for port in 0..N {
            let receiver = &mut rx[port];
            let missing = offered[port].saturating_sub(receiver.lent());
            counters.finished += u64::from(recycle(receiver, &mut tx[port], missing as u32, stage, pool));
            let missing = offered[port].saturating_sub(receiver.lent());
            if missing > 0 {
                top_up(receiver, pool, missing);
            }
            receiver.commit();

            let limit = match overload {
                Overload::Drop => *burst,
                Overload::Limit => tx.iter_mut().map(|tx| tx.room(*burst)).fold(*burst, u32::min),
            };
            let received = counters.received;
            deliver(receiver, tx, port, limit, stage, pool, counters);
            handled += (counters.received - received) as u32;
        }
        tx.iter_mut().for_each(T::commit);
        handled
    }

    #[inline]
    fn kick(&mut self) {
        for (port, far) in self.far.iter_mut().enumerate() {
            let before = if S::STAMPS { ticks() } else { 0 };
            let kicked = far.kick(Want::BOTH);
            if kicked.calls > 0 {
                if S::STAMPS {
                    self.stage.kicked(port as u8, before, ticks());
                }
                self.counters.kicks += u64::from(kicked.calls);
            }
            match kicked.outcome {
                Outcome::Idle | Outcome::HeldBack | Outcome::Woken => (),
                Outcome::Again => self.counters.kicks_again += 1,
                Outcome::Dropped => self.counters.kicks_dropped += 1,
                Outcome::Down => self.counters.kicks_down += 1,
                Outcome::Gone | Outcome::Failed(_) => self.counters.kicks_failed += 1,
            }
        }
    }

    #[cold]
    fn sample(&mut self, handled: u32, start: u64, served: u64, kicked: bool) {
        let cycles = &mut self.counters.cycles;
        cycles.turns += 1;
        cycles.packets += u64::from(handled);
        let serving = if handled > 0 { &mut cycles.busy } else { &mut cycles.idle };
        *serving += served.wrapping_sub(start);
        if kicked {
            cycles.kick += ticks().wrapping_sub(served);
        }
    }

    /// Turns until `stop` is set ([`Ended::Stopped`]) or every port's interface is gone ([`Ended::Gone`]). Idle turns
    /// are spent as [`idle`](Self::idle) says.
    pub fn run(&mut self, stop: &Stop) -> Ended {
        while !stop.is_set() {
            if self.step() == State::Gone {
                return Ended::Gone;
            }
        }
        Ended::Stopped
    }

    /// One turn, and after an idle one what [`idle`](Self::idle) says: for those who write their own loop, with an end of
    /// its own. [`State::Gone`] once no port's interface is left, which an idle worker asks for every 65,536 turns or on waking.
    #[inline]
    pub fn step(&mut self) -> State {
        if self.turn() == 0 {
            return self.rest();
        }
        self.idle_since = self.counters.turns;
        State::Up
    }

    /// Turns until everything queued was sent and finished, receiving and judging all the while, for at most `turns` turns.
    /// Whether that was enough.
    pub fn drain(&mut self, turns: u32) -> bool {
        (0..turns).any(|_| {
            self.turn();
            self.sending() == 0
        })
    }

    /// Spends an idle turn; says whether there is still somebody to serve.
    fn rest(&mut self) -> State {
        let idle = self.counters.turns - self.idle_since;
        match self.idle {
            Idle::Spin => (),
            Idle::Pause => core::hint::spin_loop(),
            Idle::Poll => return self.sleep(),
            Idle::Adaptive if idle < SPINS => core::hint::spin_loop(),
            Idle::Adaptive => return self.sleep(),
        }
        if idle % CHECK == CHECK - 1 { self.check() } else { State::Up }
    }

    /// Sleeps in poll(2) until something arrives, a stage is due, or a tenth of a second passed.
    #[cold]
    fn sleep(&mut self) -> State {
        // What waits to be sent is looked at again soon: poll(2) says nothing of it.
        let mut timeout = if self.sending() > 0 { 1_000_000 } else { SLEEP_MAX };
        if let Some(due) = self.stage.due() {
            let ahead = (due.wrapping_sub(ticks()) as i64).max(0) as f64 * self.ns_per_tick;
            if ahead < AWAKE as f64 {
                return State::Up;
            }
            timeout = timeout.min(ahead as u64 - AWAKE / 2);
        }
        let mut fds = [const { PollFd { fd: -1, events: 0, revents: 0 } }; N];
        for (entry, far) in fds.iter_mut().zip(&self.far) {
            if let Some(fd) = far.descriptor() {
                *entry = PollFd { fd, events: libc::POLLIN, revents: 0 };
            }
        }
        self.counters.sleeps += 1;
        match sys::ppoll(&mut fds, timeout) {
            // Nothing came: a removed interface looks the same to poll(2), so ask, be the sleeps as short as they may.
            Ok(0) => {
                self.quiet += timeout;
                if self.quiet < SLEEP_MAX {
                    return State::Up;
                }
                self.quiet = 0;
                self.check()
            }
            _ => State::Up,
        }
    }

    /// Asks every far side whether it is still there: gone, if all of them are.
    #[cold]
    fn check(&mut self) -> State {
        let mut gone = 0;
        for far in &mut self.far {
            gone += usize::from(far.state() == State::Gone || far.check() == State::Gone);
        }
        if N > 0 && gone == N { State::Gone } else { State::Up }
    }

    /// What was counted so far.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Frames on the way out: queued, or sent and not yet finished.
    pub fn sending(&self) -> usize {
        self.tx.iter().map(T::lent).sum()
    }

    /// Whether every frame is in the pool or lent: nothing lost, nothing doubled.
    #[inline]
    pub fn is_conserved(&self) -> bool {
        self.pool.len() + self.lent() == self.frames
    }

    #[inline]
    fn lent(&self) -> usize {
        self.rx.iter().map(R::lent).sum::<usize>() + self.sending()
    }

    /// Entries by which a far side broke its contract: each a chunk lost, which keeps counting as lent.
    pub fn broken(&self) -> u64 {
        self.rx.iter().map(R::broken).chain(self.tx.iter().map(T::broken)).sum()
    }

    /// The stage.
    pub fn stage(&self) -> &S {
        &self.stage
    }

    /// The stage, to be changed between turns.
    pub fn stage_mut(&mut self) -> &mut S {
        &mut self.stage
    }

    /// The far sides, in the order of the ports.
    pub fn far(&self) -> &[F; N] {
        &self.far
    }
}

/// Takes finished frames back, which go straight back to receive into as far as frames are missing there. Returns how many.
///
/// A function of its own, as [`deliver`] is, so that what its loop needs has the registers to itself.
#[inline(never)]
fn recycle<'u, R: Receive<'u>, T: Transmit<'u>, S: Stage>(
    receiver: &mut R,
    transmitter: &mut T,
    missing: u32,
    stage: &mut S,
    pool: &mut Pool<'u>,
) -> u32 {
    let mut offers = receiver.offers(missing);
    transmitter.reap(|frame| {
        let (frame, ()) = Held::judged(frame, pool, |frame| stage.finished(frame));
        if let Err(frame) = offers.put(frame) {
            pool.put(frame);
        }
    })
}

/// Has the stage judge up to `limit` packets that arrived on `port`, and sends each where it says.
#[inline(never)]
fn deliver<'u, R: Receive<'u>, T: Transmit<'u>, S: Stage, const N: usize>(
    receiver: &mut R,
    tx: &mut [T; N],
    port: usize,
    limit: u32,
    stage: &mut S,
    pool: &mut Pool<'u>,
    counters: &mut Counters,
) {
    let port = if N == 1 { 0 } else { port };
    // Counted here, so that a stage that panics leaves the counters in step.
    let mut judged = Tally { count: 0, total: &mut counters.received };
    let mut sends = tx.each_mut().map(T::sends);
    receiver.receive(limit, |mut frame| {
        frame.set_port(port as u8);
        let (frame, verdict) = Held::judged(frame, pool, |frame| stage.process(frame));
        judged.count += 1;
        let to = match verdict {
            Verdict::Tx => port,
            Verdict::Redirect(to) => to.into(),
            Verdict::Next | Verdict::Drop => {
                counters.dropped += 1;
                return pool.put(frame);
            }
        };
        match sends.get_mut(to) {
            Some(sends) => {
                if let Err(frame) = sends.put(frame) {
                    counters.tx_full += 1;
                    pool.put(frame);
                }
            }
            None => {
                counters.no_such_port += 1;
                pool.put(frame);
            }
        }
    });
}

/// Lends up to `missing` frames of the pool.
#[inline(never)]
fn top_up<'u, R: Receive<'u>>(receiver: &mut R, pool: &mut Pool<'u>, missing: usize) {
    let mut offers = receiver.offers(missing as u32);
    for _ in 0..missing {
        let Some(frame) = pool.take() else { break };
        if let Err(frame) = offers.put(frame) {
            return pool.put(frame);
        }
    }
}

/// A count kept in a register, and added to its total when it goes, by a panic too.
struct Tally<'t> {
    count: u64,
    total: &'t mut u64,
}

impl Drop for Tally<'_> {
    #[inline]
    fn drop(&mut self) {
        *self.total += self.count;
    }
}

/// Why [`Worker::run`] came back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was stopped.
    Stopped,
    /// No interface is left.
    Gone,
}

/// Tells workers to stop, from any thread or a signal handler.
#[derive(Debug, Default)]
pub struct Stop(AtomicBool);

impl Stop {
    /// Not set.
    pub const fn new() -> Self {
        Self(AtomicBool::new(false))
    }

    /// Sets it, for good.
    pub fn set(&self) {
        self.0.store(true, Relaxed);
    }

    /// Whether it is set.
    #[inline]
    pub fn is_set(&self) -> bool {
        self.0.load(Relaxed)
    }
}
