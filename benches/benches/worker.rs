//! What the loop costs a packet, without a kernel: `worker/cycles/...`, in time-stamp ticks (see the frequency printed first).
//!
//! The port's four rings are on the heap; the far side is played between turns, untimed, and hands over chunks without touching
//! them. A turn is timed whole, with both stamps: about 0.5 ticks a packet at a burst of 64.

#![allow(missing_docs, reason = "criterion_group! makes an undocumented function")]

use core::hint::black_box;
use criterion::measurement::{Measurement, ValueFormatter};
use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use xdp_core::sim::{self, Config};
use xdp_core::{Frame, Layout, RegionOptions, RingSizes, Stage, Umem, Verdict, Worker, ticks};

/// Time-stamp ticks.
struct Ticks;

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

fn mac_swap(frame: &mut Frame<'_>) -> Verdict {
    let Some((header, _)) = frame.split_first_chunk_mut::<12>() else { return Verdict::Drop };
    let (to, from) = header.split_at_mut(6);
    to.swap_with_slice(from);
    Verdict::Tx
}

fn pass(_: &mut Frame<'_>) -> Verdict {
    Verdict::Next
}

/// Times turns of `stage` over one port at bursts of `burst`.
fn turns(c: &mut Criterion<Ticks>, name: &str, burst: u32, make: impl Fn() -> Box<dyn FnMut(u64) -> u64>) {
    let mut group = c.benchmark_group("worker/cycles");
    group.throughput(Throughput::Elements(burst.into()));
    group.bench_function(BenchmarkId::new(name, burst), |b| {
        let mut run = make();
        b.iter_custom(&mut run);
    });
    group.finish();
}

fn looped<S: Stage + 'static>(burst: u32, ring: u32, chunks: u32, stage: S) -> Box<dyn FnMut(u64) -> u64> {
    let layout = Layout::new(2048, chunks).expect("a layout");
    let umem: &'static Umem =
        Box::leak(Box::new(Umem::new(layout, &RegionOptions::default()).expect("memory")));
    let rings = RingSizes { fill: ring, rx: ring, tx: ring, completion: ring };
    let (port, mut wire) = sim::link_with(umem, &Config { rings, ..Config::default() });
    let frames = umem.take_frames().expect("once");
    let mut worker = Worker::new([port], stage, frames).burst(burst).offer(ring as usize);
    Box::new(move |iterations| {
        let mut spent = 0;
        for _ in 0..iterations {
            wire.rush(burst, 64);
            let start = ticks();
            black_box(worker.turn());
            spent += ticks() - start;
        }
        spent
    })
}

fn worker(c: &mut Criterion<Ticks>) {
    for burst in [1, 8, 32, 64, 256] {
        turns(c, "macswap/warm", burst, || looped(burst, 256, 600, mac_swap));
    }
    turns(c, "drop/warm", 64, || looped(64, 256, 600, |_: &mut Frame<'_>| Verdict::Drop));
    turns(c, "macswap+1/warm", 64, || looped(64, 256, 600, pass.then(mac_swap)));
    turns(c, "macswap+3/warm", 64, || looped(64, 256, 600, pass.then(pass).then(pass).then(mac_swap)));
    turns(c, "macswap/cold", 64, || looped(64, 2048, 8192, mac_swap));
}

criterion_group! {
    name = benches;
    config = Criterion::default().with_measurement(Ticks).sample_size(30);
    targets = worker
}
criterion_main!(benches);
