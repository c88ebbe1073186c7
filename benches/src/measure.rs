//! Measuring in time-stamp ticks, and saying what was measured where.

use core::hint::black_box;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;
use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{Criterion, Throughput};
use xdp_core::{Clock, cpu, ticks};

/// Runs `f` and returns how many ticks it took. What is timed is a function of its own, so that instructions can be counted in it and
/// nowhere else.
#[inline(never)]
pub fn timed<V>(f: impl FnOnce() -> V) -> u64 {
    SECTIONS.fetch_add(1, Ordering::Relaxed);
    let start = ticks();
    black_box(f());
    ticks() - start
}

static SECTIONS: AtomicU64 = AtomicU64::new(0);

/// How many sections were timed so far.
pub fn sections() -> u64 {
    SECTIONS.load(Ordering::Relaxed)
}

/// Something to measure: each call runs a timed section and returns its ticks.
pub type Rig = Box<dyn FnMut() -> u64>;

/// A row of a table.
pub struct Row {
    /// *thing/parameter*.
    pub name: String,
    /// Packets, or entries, in a timed section.
    pub packets: u64,
    /// Sets it up.
    pub rig: Box<dyn Fn() -> Rig>,
}

impl Row {
    /// A row.
    pub fn new(name: impl Into<String>, packets: u64, rig: impl Fn() -> Rig + 'static) -> Self {
        Self { name: name.into(), packets, rig: Box::new(rig) }
    }
}

/// Time-stamp ticks, for criterion.
#[derive(Debug)]
pub struct Ticks;

impl Measurement for Ticks {
    type Intermediate = u64;
    type Value = u64;
    fn start(&self) -> u64 {
        ticks()
    }
    fn end(&self, start: u64) -> u64 {
        ticks() - start
    }
    fn add(&self, one: &u64, other: &u64) -> u64 {
        one + other
    }
    fn zero(&self) -> u64 {
        0
    }
    fn to_f64(&self, value: &u64) -> f64 {
        *value as f64
    }
    fn formatter(&self) -> &dyn ValueFormatter {
        self
    }
}

impl ValueFormatter for Ticks {
    fn scale_values(&self, _: f64, _: &mut [f64]) -> &'static str {
        "ticks"
    }
    fn scale_throughputs(&self, _: f64, throughput: &Throughput, values: &mut [f64]) -> &'static str {
        if let Throughput::Elements(packets) = throughput {
            values.iter_mut().for_each(|ticks| *ticks /= *packets as f64);
        }
        "ticks/packet"
    }
    fn scale_for_machines(&self, _: &mut [f64]) -> &'static str {
        "ticks"
    }
}

/// Criterion over ticks: short, as the minimum is reached soon and the rows are many.
pub fn criterion() -> Criterion<Ticks> {
    Criterion::default()
        .with_measurement(Ticks)
        .sample_size(20)
        .warm_up_time(Duration::from_millis(100))
        .measurement_time(Duration::from_millis(400))
        .configure_from_args()
}

/// What was measured in one bench program: a table at the end.
#[derive(Default)]
pub struct Table {
    /// Name, packets a section, ticks of each section.
    rows: Vec<(String, u64, Vec<u64>)>,
}

/// Sections kept of a row: beyond, they are run and not kept.
const KEPT: usize = 200_000;

impl Table {
    /// An empty table, the thread pinned to the last core it may run on.
    pub fn new() -> Self {
        let last = cpu::allowed().ok().and_then(|cores| cores.last().copied());
        if let Some(error) = last.and_then(|core| cpu::pin(core).err()) {
            eprintln!("not pinned: {error}");
        }
        Self::default()
    }

    /// Measures `rows` as one group of criterion's.
    pub fn measure(
        &mut self,
        criterion: &mut Criterion<Ticks>,
        group: &str,
        rows: impl IntoIterator<Item = Row>,
    ) {
        let mut benches = criterion.benchmark_group(group);
        for row in rows {
            let mut sections = Vec::with_capacity(KEPT);
            benches.throughput(Throughput::Elements(row.packets));
            let mut rig = None;
            benches.bench_function(&row.name, |bencher| {
                let rig = rig.get_or_insert_with(|| (row.rig)());
                bencher.iter_custom(|iterations| {
                    let mut spent = 0;
                    for _ in 0..iterations {
                        let ticks = rig();
                        spent += ticks;
                        if sections.len() < KEPT {
                            sections.push(ticks);
                        }
                    }
                    spent
                });
            });
            if !sections.is_empty() {
                self.rows.push((format!("{group}/{}", row.name), row.packets, sections));
            }
        }
        benches.finish();
    }

    /// Prints the machine and every row: ticks a packet over the timed sections, the minimum, the mean of the faster half (finer
    /// than any one section where the counter moves in steps, as in some virtual machines), the median and the ninth decile;
    /// and that mean in nanoseconds.
    pub fn print(mut self) {
        if self.rows.is_empty() {
            return;
        }
        println!("\n{}", machine());
        println!(
            "{:<44} {:>8} {:>8} {:>8} {:>8} {:>8}",
            "ticks a packet", "min", "low mean", "p50", "p90", "ns"
        );
        let frequency = Clock::calibrated().frequency() as f64;
        for (name, packets, sections) in &mut self.rows {
            sections.sort_unstable();
            let quantile =
                |q: f64| sections[((sections.len() - 1) as f64 * q) as usize] as f64 / *packets as f64;
            let [min, p50, p90] = [0.0, 0.5, 0.9].map(quantile);
            let faster = &sections[..sections.len().div_ceil(2)];
            let low = faster.iter().sum::<u64>() as f64 / faster.len() as f64 / *packets as f64;
            println!("{name:<44} {min:>8.2} {low:>8.2} {p50:>8.2} {p90:>8.2} {:>8.2}", low * 1e9 / frequency);
        }
    }
}

/// Where this runs, in a line.
pub fn machine() -> String {
    let machine = cpu::Machine::read();
    let huge: u64 =
        cpu::huge_pages().iter().filter(|pages| pages.size == 2 << 20).map(|pages| pages.total).sum();
    format!(
        "{}{}, {} cores, Linux {}, governor {}, {huge} huge pages, {:.0} MHz time-stamp counter",
        machine.cpu_model,
        if machine.virtualised { " (virtual)" } else { "" },
        machine.cores_online,
        machine.kernel,
        machine.governor.as_deref().unwrap_or("not shown"),
        Clock::calibrated().frequency() as f64 / 1e6,
    )
}
