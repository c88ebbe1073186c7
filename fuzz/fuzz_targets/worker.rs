//! The loop over the simulated kernel at any temper, with packets of any length and a stage that does as they say: every
//! frame is kept, every packet is counted once, and none comes out changed but as the stage changed it.

#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use xdp_core::sim::{self, Config, Model, Temper};
use xdp_core::{Frame, Layout, Outbox, Overload, RingSizes, Stage, State, Transmit, Umem, Verdict, Worker};

/// What a packet's first byte says is done with it; it also sends copies of its own.
#[derive(Default)]
struct Obedient {
    judged: u64,
    finished: u64,
    to_send: u32,
}

impl Stage for Obedient {
    fn process(&mut self, frame: &mut Frame<'_>) -> Verdict {
        self.judged += 1;
        let say = frame.first().copied().unwrap_or(0);
        match say >> 4 {
            0 => {}
            1 => drop(frame.adjust_head(i32::from(say & 15) - 8)),
            2 => drop(frame.adjust_tail(i32::from(say & 15) - 8)),
            3 => drop(frame.set_len(usize::from(say & 15) * 400)),
            4 => frame.set_tx_metadata(say & 1 != 0),
            5 => drop(frame.write(&[say; 60])),
            6 => drop(frame.set_len(0)),
            7 => frame.head_mut().fill(say),
            8 => self.to_send += u32::from(say & 15),
            _ => frame.for_each_fragment(|bytes| bytes.reverse()),
        }
        match say & 7 {
            0 | 1 => Verdict::Tx,
            2 | 3 => Verdict::Redirect(1 - frame.port()),
            4 => Verdict::Redirect(say >> 3),
            5 => Verdict::Next,
            _ => Verdict::Drop,
        }
    }

    fn tick<'u, T: Transmit<'u>>(&mut self, out: &mut Outbox<'_, 'u, T>) {
        while self.to_send > 0 {
            self.to_send -= 1;
            let port = (self.to_send % 3) as u8;
            let fits = out.room(port, 1) > 0;
            assert_eq!(out.copy(port, &[self.to_send as u8; 64]), fits);
        }
    }

    fn finished(&mut self, frame: &Frame<'_>) {
        assert_eq!((frame.len(), frame.chunks()), (0, 1));
        self.finished += 1;
    }
}

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes)); // too few bytes: the end of this input
});

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let layout = match input.int_in_range(0..=3)? {
        0 => Layout::new(2048, 64),
        1 => Layout::new(4096, 64),
        2 => Layout::new(2048, 64).and_then(|layout| layout.with_tx_metadata(24)),
        _ => Layout::unaligned(input.int_in_range(2048..=4096)?, 64),
    };
    let layout = layout.and_then(|layout| layout.with_headroom(input.int_in_range(0..=1000).unwrap_or(0)));
    let umem = Umem::heap(layout.expect("within what the kernel takes"));
    let size = 1 << input.int_in_range(2..=4)?;
    let config = |input: &mut Unstructured<'_>| -> Result<Config> {
        Ok(Config {
            rings: RingSizes { fill: size, rx: size, tx: size, completion: size },
            first_index: input.arbitrary()?,
            model: Model::ALL[input.int_in_range(0..=3)?],
            need_wakeup: input.arbitrary()?,
            temper: Temper {
                late: input.int_in_range(0..=60)?,
                stingy: input.int_in_range(0..=9)?,
                lossy: input.int_in_range(0..=40)?,
                straggling: input.int_in_range(0..=60)?,
            },
            seed: input.arbitrary()?,
        })
    };
    let (one, left) = sim::link_with(&umem, &config(input)?);
    let (other, right) = sim::link_with(&umem, &config(input)?);
    let mut wires = [left, right];
    let overload = if input.arbitrary()? { Overload::Drop } else { Overload::Limit };
    let mut worker = Worker::new([one, other], Obedient::default(), umem.take_frames().expect("taken once"))
        .burst(input.int_in_range(1..=70)?)
        .offer(input.int_in_range(1..=32)?)
        .overload(overload);
    let mut came = [0u64; 2];
    while !input.is_empty() {
        let which = usize::from(input.arbitrary::<bool>()?);
        match input.int_in_range(0..=5)? {
            0 | 1 => {
                let head: [u8; 2] = input.arbitrary()?;
                let len = if input.ratio(1, 4)? {
                    input.int_in_range(0..=9000)?
                } else {
                    input.int_in_range(0..=1500)?
                };
                let mut packet = vec![head[1]; len];
                packet.iter_mut().take(1).for_each(|byte| *byte = head[0]);
                // More than the rings can hold at once would block the wire for good, as on a device without room.
                if len.div_ceil(umem.layout().packet_max() as usize) <= size as usize / 2 {
                    wires[which].queue(&packet);
                }
            }
            2 => wires[which].step(),
            3 => {
                let state = [State::Up, State::Down, State::Gone][input.int_in_range(0..=2)?];
                wires[which].set_state(state);
            }
            _ => drop(worker.turn()),
        }
        assert!(worker.is_conserved());
    }
    for _ in 0..2_000 {
        for (wire, came) in wires.iter_mut().zip(&mut came) {
            wire.set_state(State::Up);
            *came += wire.collect().len() as u64;
        }
        worker.turn();
        if worker.sending() == 0 && wires.iter().all(|wire| wire.waiting() == 0) {
            break;
        }
    }
    assert_eq!((worker.sending(), worker.broken()), (0, 0), "everything sent is finished");
    assert!(worker.is_conserved());
    let counters = *worker.counters();
    let stats = wires.each_ref().map(|wire| *wire.stats());
    let sum = |of: fn(&sim::WireStats) -> u64| stats.iter().map(of).sum::<u64>();
    assert_eq!(worker.stage().judged, counters.received);
    assert_eq!(worker.stage().finished, counters.finished);
    assert_eq!(sum(|stats| stats.completed), counters.finished);
    assert_eq!(sum(|stats| stats.sent), counters.forwarded() + counters.originated);
    assert_eq!(sum(|stats| stats.invalid), 0, "no descriptor that a kernel would refuse");
    assert_eq!(came.iter().sum::<u64>(), sum(|stats| stats.sent - stats.lost_out));
    Ok(())
}
