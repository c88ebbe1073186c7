//! Session: sockets, memory and threads for stages, from first to last. Functions, without a word of output, so that a
//! command, the demonstration and a study start and end alike.
#![forbid(unsafe_code)]

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::any::Any;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};
use xdp_core::netdev::{self, Namespace};
use xdp_core::ring::KernelRing;
use xdp_core::uapi::Statistics;
use xdp_core::{
    Clock, Counters, Error, Far, Granted, Idle, Layout, Mode, Receive, RegionOptions, Registration,
    RingReceiver, RingTransmitter, Rules, Stage, State, Stop, Transmit, Umem, Worker, XskConfig, XskFar,
    XskPort, cpu,
};

/// A worker over real sockets.
pub(crate) type XskWorker<'u, S, const N: usize> =
    Worker<'u, RingReceiver<'u, KernelRing>, RingTransmitter<'u, KernelRing>, XskFar, S, N>;

/// All that sockets and workers are made from.
#[derive(Debug)]
pub(crate) struct Setup {
    /// Where the interfaces are; the calling thread's own, if not said.
    pub(crate) namespace: Option<Namespace>,
    /// What is taken from the interfaces, and where the program runs; `None` for sockets that only send.
    pub(crate) program: Option<(Mode, Rules)>,
    pub(crate) layout: Layout,
    pub(crate) region: RegionOptions,
    pub(crate) xsk: XskConfig,
    pub(crate) burst: u32,
    pub(crate) idle: Idle,
    pub(crate) seats: Vec<Place>,
}

/// Where a worker is: its core, and its ports, each an interface and a queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The core its thread is pinned to; wherever the scheduler puts it, if none is said.
    pub(crate) core: Option<usize>,
    pub(crate) ports: Vec<(String, u32)>,
}

impl Setup {
    /// Maps the memory.
    pub(crate) fn memory(&self) -> Result<Umem, Error> {
        Umem::new(self.layout, &self.region).map_err(|errno| Error::Socket {
            operation: "map",
            object: format!("a UMEM of {} KiB", self.layout.len() / 1024),
            errno,
            remedy: "fewer or smaller chunks may fit; --huge-pages=require needs free ones (vm.nr_hugepages)"
                .into(),
        })
    }

    /// A registration of that memory with the program of this set-up, without a socket yet.
    pub(crate) fn registration<'u>(&self, umem: &'u Umem) -> Registration<'u> {
        match &self.program {
            Some((mode, rules)) => Registration::new(umem).mode(*mode).rules(rules.clone()),
            None => Registration::new(umem).send_only(),
        }
    }

    /// Binds every worker's ports, `N` each. The program is on the interfaces from here until the ports and the
    /// registration are dropped.
    ///
    /// # Panics
    /// If a place has another number of ports.
    pub(crate) fn bind<'u, const N: usize>(
        &self,
        registration: &mut Registration<'u>,
    ) -> Result<Vec<[XskPort<'u>; N]>, Error> {
        within(self.namespace.as_ref(), || {
            let mut all = Vec::with_capacity(self.seats.len());
            for place in &self.seats {
                let mut ports = Vec::with_capacity(N);
                for (interface, queue) in &place.ports {
                    ports.push(registration.bind(interface, *queue, &self.xsk)?);
                }
                all.push(<[_; N]>::try_from(ports).expect("a place has as many ports as its worker"));
            }
            Ok(all)
        })?
    }

    /// Whether several workers share a core, and so a thread.
    pub(crate) fn is_cooperative(&self) -> bool {
        let cores: Vec<_> = self.seats.iter().filter_map(|place| place.core).collect();
        (1..cores.len()).any(|i| cores[..i].contains(&cores[i]))
    }

    /// Workers over those ports, with the frames split among them; `stage` makes each its stage.
    ///
    /// # Panics
    /// If the frames were taken before.
    pub(crate) fn workers<'u, S: Stage, const N: usize>(
        &self,
        umem: &'u Umem,
        ports: Vec<[XskPort<'u>; N]>,
        clock: &Clock,
        mut stage: impl FnMut(usize) -> S,
    ) -> Vec<XskWorker<'u, S, N>> {
        let frames = umem.take_frames().expect("the frames of a UMEM are taken once").split(ports.len());
        // A worker that sleeps holds up the others of its thread.
        let idle = if self.is_cooperative() { Idle::Pause } else { self.idle };
        let parts = ports.into_iter().zip(frames).enumerate();
        parts
            .map(|(i, (ports, frames))| {
                Worker::new(ports, stage(i), frames).burst(self.burst).idle(idle, clock)
            })
            .collect()
    }
}

/// Runs a job in a namespace, or here.
pub(crate) fn within<T: Send>(
    namespace: Option<&Namespace>,
    job: impl FnOnce() -> T + Send,
) -> Result<T, netdev::Error> {
    match namespace {
        Some(namespace) => namespace.run(job),
        None => Ok(job()),
    }
}

/// What a worker has done so far, for whoever watches; the worker writes it every few turns.
#[derive(Debug, Default)]
#[repr(align(128))] // no cache line shared with another worker's
pub(crate) struct Gauge {
    received: AtomicU64,
    sent: AtomicU64,
    overflowed: AtomicU64,
}

/// A reading of one gauge, or the sum of several, in packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) received: u64,
    pub(crate) sent: u64,
    /// Received and dropped for want of room, or of a port, to leave by.
    pub(crate) overflowed: u64,
}

impl Gauge {
    fn set(&self, counters: &Counters) {
        self.received.store(counters.received, Relaxed);
        self.sent.store(counters.forwarded() + counters.originated, Relaxed);
        self.overflowed.store(counters.tx_full + counters.no_such_port, Relaxed);
    }

    /// The sum of several.
    pub(crate) fn sum<'g>(gauges: impl IntoIterator<Item = &'g Arc<Self>>) -> Reading {
        gauges.into_iter().fold(Reading::default(), |sum, gauge| Reading {
            received: sum.received + gauge.received.load(Relaxed),
            sent: sum.sent + gauge.sent.load(Relaxed),
            overflowed: sum.overflowed + gauge.overflowed.load(Relaxed),
        })
    }
}

/// Why a worker came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It did what it was to do.
    Done,
    /// It was told to stop.
    Stopped,
    /// No interface of it is left.
    Gone,
}

/// A worker with its goal, in a thread of its own or one of several in a thread.
pub(crate) trait Crank: Send {
    /// Turns until the end.
    fn run(&mut self, stop: &Stop) -> End;
    /// Turns once; says whether that was the end.
    fn step(&mut self, stop: &Stop) -> Option<End>;
    /// Lets what was queued leave: turns until it has, for 200 ms at most.
    fn settle(&mut self);
}

/// A worker, and when it is done.
pub(crate) struct Seat<'w, W, G> {
    worker: &'w mut W,
    goal: G,
    gauge: Arc<Gauge>,
    /// Turns between two looks at goal, stop and gauge, less one; a power of two less one.
    mask: u64,
}

impl<'w, W, G> Seat<'w, W, G> {
    /// `goal` says, of stage and counters, whether the worker is done; it is asked every 64 turns, and every turn where
    /// turns sleep (`idle`).
    pub(crate) fn new(worker: &'w mut W, gauge: Arc<Gauge>, idle: Idle, goal: G) -> Self {
        let mask = if matches!(idle, Idle::Poll | Idle::Adaptive) { 0 } else { 63 };
        Self { worker, goal, gauge, mask }
    }
}

impl<'u, R, T, F, S, G, const N: usize> Crank for Seat<'_, Worker<'u, R, T, F, S, N>, G>
where
    R: Receive<'u> + Send,
    T: Transmit<'u> + Send,
    F: Far + Send,
    S: Stage + Send,
    G: FnMut(&mut S, &Counters) -> bool + Send,
{
    fn run(&mut self, stop: &Stop) -> End {
        loop {
            if let Some(end) = self.step(stop) {
                return end;
            }
        }
    }

    #[inline]
    fn step(&mut self, stop: &Stop) -> Option<End> {
        if self.worker.counters().turns & self.mask == 0 {
            let counters = *self.worker.counters();
            self.gauge.set(&counters);
            if (self.goal)(self.worker.stage_mut(), &counters) {
                return Some(End::Done);
            }
            if stop.is_set() {
                return Some(End::Stopped);
            }
        }
        (self.worker.step() == State::Gone).then_some(End::Gone)
    }

    fn settle(&mut self) {
        let deadline = Instant::now() + Duration::from_millis(200);
        while self.worker.sending() > 0 && Instant::now() < deadline && !self.worker.drain(64) {}
        self.gauge.set(self.worker.counters());
    }
}

/// The workers of one thread.
pub(crate) struct Crew<'w> {
    pub(crate) core: Option<usize>,
    pub(crate) cranks: Vec<Box<dyn Crank + 'w>>,
}

impl<'w> Crew<'w> {
    /// One crew a core: workers on the same core share a thread, which turns them in rotation. A worker without a core
    /// has a thread to itself.
    pub(crate) fn muster(
        cranks: impl IntoIterator<Item = (Option<usize>, Box<dyn Crank + 'w>)>,
    ) -> Vec<Self> {
        let mut crews: Vec<Self> = Vec::new();
        for (core, crank) in cranks {
            match crews.iter_mut().find(|crew| core.is_some() && crew.core == core) {
                Some(crew) => crew.cranks.push(crank),
                None => crews.push(Self { core, cranks: vec![crank] }),
            }
        }
        crews
    }

    /// Turns every crank to its end. The first one to lose its interfaces does not end the others.
    fn run(mut self, stop: &Stop) -> Result<End, netdev::Error> {
        if let Some(core) = self.core {
            cpu::pin(core)?;
        }
        let end = match &mut self.cranks[..] {
            [alone] => alone.run(stop),
            several => rotate(several, stop),
        };
        if end != End::Gone {
            self.cranks.iter_mut().for_each(|crank| crank.settle());
        }
        Ok(end)
    }
}

/// Turns several workers in one thread, each once a round, until all have ended. Gone, if one of them is; else stopped, if one was.
fn rotate(cranks: &mut [Box<dyn Crank + '_>], stop: &Stop) -> End {
    let mut ends = vec![None; cranks.len()];
    let mut left = cranks.len();
    while left > 0 {
        for (crank, end) in cranks.iter_mut().zip(&mut ends) {
            if end.is_none() {
                *end = crank.step(stop);
                left -= usize::from(end.is_some());
            }
        }
    }
    worst(ends.into_iter().flatten())
}

fn worst(ends: impl IntoIterator<Item = End>) -> End {
    let rank = |end: &End| [End::Done, End::Stopped, End::Gone].iter().position(|one| one == end);
    ends.into_iter().max_by_key(rank).unwrap_or(End::Done)
}

/// What became of a run.
#[derive(Debug)]
pub(crate) enum Ran {
    /// Every worker came to an end; the worst of them.
    Ended(End),
    /// A thread could not be pinned; the others were stopped.
    NotPinned(netdev::Error),
    /// A worker panicked, with these words; the others were stopped. Its frames are where they were.
    Panicked(String),
}

/// Sets a stop when its thread unwinds, and tells the watcher when it ends.
struct Watched<'s> {
    stop: &'s Stop,
    ended: mpsc::Sender<()>,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.stop.set();
        }
        let _ = self.ended.send(());
    }
}

/// Runs each crew in a thread of its own until all have ended. The calling thread calls `watch` every `interval` (which may say
/// that it is enough, [`ControlFlow::Break`]), sleeping in between.
pub(crate) fn run(
    crews: Vec<Crew<'_>>,
    stop: &Stop,
    interval: Duration,
    mut watch: impl FnMut() -> ControlFlow<()>,
) -> Ran {
    thread::scope(|scope| {
        let (ended, end) = mpsc::channel();
        let mut threads = Vec::new();
        for crew in crews {
            let watched = Watched { stop, ended: ended.clone() };
            threads.push(scope.spawn(move || {
                let watched = watched;
                let ran = crew.run(watched.stop);
                if ran.is_err() {
                    watched.stop.set();
                }
                ran
            }));
        }
        let mut left = threads.len();
        let mut next = Instant::now() + interval;
        while left > 0 {
            match end.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(()) => left -= 1,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    next += interval;
                    if watch().is_break() {
                        stop.set();
                    }
                }
            }
        }
        let mut ends = Vec::new();
        let (mut panicked, mut not_pinned) = (None, None);
        for thread in threads {
            match thread.join() {
                Ok(Ok(end)) => ends.push(end),
                Ok(Err(error)) => not_pinned = Some(error),
                Err(payload) => panicked = Some(words(&*payload)),
            }
        }
        match (panicked, not_pinned) {
            (Some(words), _) => Ran::Panicked(words),
            (None, Some(error)) => Ran::NotPinned(error),
            (None, None) => Ran::Ended(worst(ends)),
        }
    })
}

/// What a panic said.
fn words(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| payload.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a word".to_string())
}

/// What a worker's ports were and became.
#[derive(Clone, Debug)]
pub(crate) struct PortReport {
    pub(crate) interface: String,
    pub(crate) queue: u32,
    pub(crate) granted: Granted,
    pub(crate) statistics: Statistics,
    /// What the last look at the interface found.
    pub(crate) state: State,
}

/// What a worker did.
#[derive(Clone, Debug)]
pub(crate) struct WorkerReport {
    pub(crate) core: Option<usize>,
    pub(crate) counters: Counters,
    /// Every frame is in the pool or lent, and no far side broke its contract.
    pub(crate) conserved: bool,
    /// Frames queued that had not been finished at the end.
    pub(crate) sending: usize,
    pub(crate) ports: Vec<PortReport>,
}

impl WorkerReport {
    /// Reads a worker over sockets. Four system calls a port.
    pub(crate) fn of<S: Stage, const N: usize>(worker: &XskWorker<'_, S, N>, core: Option<usize>) -> Self {
        let ports = worker.far().iter().map(|far| {
            let xsk = far.xsk();
            PortReport {
                interface: xsk.interface().to_string(),
                queue: xsk.queue(),
                granted: xsk.granted(),
                statistics: xsk.statistics().unwrap_or_default(),
                state: far.state(),
            }
        });
        Self {
            core,
            counters: *worker.counters(),
            conserved: worker.is_conserved() && worker.broken() == 0,
            sending: worker.sending(),
            ports: ports.collect(),
        }
    }
}

/// SIGINT, SIGTERM and SIGHUP: the first sets a [`Stop`], the second ends the process at once (its programs go with it).
#[derive(Debug)]
pub(crate) struct Interrupts {
    state: Arc<(Stop, AtomicI32)>,
    handle: signal_hook::iterator::Handle,
    thread: Option<thread::JoinHandle<()>>,
}

impl Interrupts {
    /// Catches them while the value lives.
    pub(crate) fn catch() -> std::io::Result<Self> {
        let mut signals = signal_hook::iterator::Signals::new([SIGINT, SIGTERM, SIGHUP])?;
        let handle = signals.handle();
        let state = Arc::new((Stop::new(), AtomicI32::new(0)));
        let seen = state.clone();
        let thread = thread::Builder::new().name("signals".into()).spawn(move || {
            for signal in signals.forever() {
                if seen.1.swap(signal, Relaxed) != 0 {
                    signal_hook::low_level::exit(130);
                }
                seen.0.set();
            }
        })?;
        Ok(Self { state, handle, thread: Some(thread) })
    }

    /// What the first one sets.
    pub(crate) fn stop(&self) -> &Stop {
        &self.state.0
    }

    /// Whether one came.
    pub(crate) fn came(&self) -> bool {
        self.state.1.load(Relaxed) != 0
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        self.handle.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use xdp_core::sim;
    use xdp_core::{Frame, Verdict};

    fn workers<'u, S: Stage>(
        umem: &'u Umem,
        mut stage: impl FnMut() -> S,
    ) -> (
        Vec<Worker<'u, impl Receive<'u> + Send, impl Transmit<'u> + Send, impl Far + Send, S, 1>>,
        Vec<sim::Wire<'u>>,
    ) {
        let frames = umem.take_frames().unwrap().split(2);
        let (mut workers, mut wires) = (Vec::new(), Vec::new());
        for frames in frames {
            let (port, wire) = sim::link(umem);
            workers.push(Worker::new([port], stage(), frames));
            wires.push(wire);
        }
        (workers, wires)
    }

    fn drop_it(_: &mut Frame<'_>) -> Verdict {
        Verdict::Drop
    }

    #[test]
    fn workers_of_one_core_take_turns_in_one_thread_and_each_ends_at_its_goal() {
        let umem = Umem::heap(Layout::new(2048, 2048).unwrap());
        let (mut workers, _wires) = workers(&umem, || drop_it);
        let core = cpu::allowed().unwrap()[0];
        let cranks = workers.iter_mut().zip([640, 6400]).map(|(worker, turns)| {
            let goal = move |_: &mut _, counters: &Counters| counters.turns >= turns;
            let seat = Seat::new(worker, Arc::default(), Idle::Spin, goal);
            (Some(core), Box::new(seat) as Box<dyn Crank>)
        });
        let crews = Crew::muster(cranks);
        assert_eq!(crews.len(), 1);
        let ran = run(crews, &Stop::new(), Duration::from_secs(1), || ControlFlow::Continue(()));
        assert!(matches!(ran, Ran::Ended(End::Done)), "{ran:?}");
        assert_eq!(workers.iter().map(|worker| worker.counters().turns).collect::<Vec<_>>(), [640, 6400]);
    }

    #[test]
    fn a_worker_that_panics_stops_the_others_and_its_words_are_kept() {
        let umem = Umem::heap(Layout::new(2048, 2048).unwrap());
        let bomb = || |_: &mut Frame<'_>| -> Verdict { panic!("a stage gone wrong") };
        let (mut workers, mut wires) = workers(&umem, bomb);
        workers[1].turn();
        wires[1].inject(b"a packet");
        let crews = Crew::muster(workers.iter_mut().map(|worker| {
            let seat = Seat::new(worker, Arc::default(), Idle::Spin, |_: &mut _, _: &Counters| false);
            (None, Box::new(seat) as Box<dyn Crank>)
        }));
        assert_eq!(crews.len(), 2);
        let ran = run(crews, &Stop::new(), Duration::from_secs(1), || ControlFlow::Continue(()));
        assert!(matches!(&ran, Ran::Panicked(words) if words == "a stage gone wrong"), "{ran:?}");
        assert!(workers.iter().all(Worker::is_conserved));
    }

    #[test]
    fn the_watcher_can_end_a_run_and_reads_what_the_workers_did() {
        let umem = Umem::heap(Layout::new(2048, 2048).unwrap());
        let (mut workers, mut wires) = workers(&umem, || drop_it);
        workers.iter_mut().for_each(|worker| {
            worker.turn();
        });
        wires.iter_mut().for_each(|wire| {
            wire.inject(b"a packet");
        });
        let gauges: Vec<Arc<Gauge>> = (0..2).map(|_| Arc::default()).collect();
        let crews = Crew::muster(workers.iter_mut().zip(&gauges).map(|(worker, gauge)| {
            let seat = Seat::new(worker, gauge.clone(), Idle::Spin, |_: &mut _, _: &Counters| false);
            (None, Box::new(seat) as Box<dyn Crank>)
        }));
        let mut looks = 0;
        let ran = run(crews, &Stop::new(), Duration::from_millis(1), || {
            looks += 1;
            if Gauge::sum(&gauges).received == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        assert!(matches!(ran, Ran::Ended(End::Stopped)), "{ran:?}");
        assert!(looks > 0);
        assert_eq!(Gauge::sum(&gauges), Reading { received: 2, sent: 0, overflowed: 0 });
    }
}
