//! A far side that hands back whatever it likes: no descriptor leads out of the UMEM or across a chunk, and with the
//! ledger no chunk gets two owners, be it forged, repeated, handed back on the wrong ring, or read again after an index
//! jumped.

#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use std::collections::HashSet;
use xdp_core::{Desc, Frame, Layout, Receive, Transmit, Umem, fuzzing};

const CHUNKS: u32 = 16;

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes)); // too few bytes: the end of this input
});

/// The frames on our side: each chunk once.
struct Owned<'u> {
    umem: &'u Umem,
    frames: Vec<Frame<'u>>,
    chunks: HashSet<usize>,
}

impl<'u> Owned<'u> {
    /// The number of a frame's chunk, by where its packet is.
    fn chunk(&self, frame: &Frame<'_>) -> usize {
        let offset = frame.as_ptr() as usize - self.umem.region().base().as_ptr() as usize;
        let size = self.umem.layout().chunk_size() as usize;
        // An empty packet may begin where its chunk ends.
        let chunk = if frame.is_empty() && frame.capacity() == 0 { offset - 1 } else { offset } / size;
        assert!(offset + frame.len() <= (chunk + 1) * size, "inside one chunk");
        assert!(chunk < CHUNKS as usize, "inside the UMEM");
        chunk
    }

    fn take(&mut self, mut packet: Frame<'u>) {
        while let Some(rest) = {
            let rest = packet.take_rest();
            let chunk = self.chunk(&packet);
            assert!(self.chunks.insert(chunk), "chunk {chunk} has two owners");
            packet.iter_mut().for_each(|byte| *byte ^= 0xff); // all of it can be read and written
            self.frames.push(packet);
            rest
        } {
            packet = rest;
        }
    }

    fn give(&mut self) -> Option<Frame<'u>> {
        let frame = self.frames.pop()?;
        let chunk = self.chunk(&frame);
        assert!(self.chunks.remove(&chunk));
        Some(frame)
    }
}

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let layout = match input.int_in_range(0..=2)? {
        0 => Layout::new(2048, CHUNKS),
        1 => Layout::new(4096, CHUNKS),
        _ => Layout::unaligned(input.int_in_range(2048..=4096)?, CHUNKS),
    };
    let layout = layout.expect("within what the kernel takes");
    let umem = Umem::heap(layout);
    let first = input.arbitrary()?;
    // SAFETY: the ledger is on, so that nothing need hold.
    let (mut rx, mut tx, mut far) = unsafe { fuzzing::port(&umem, 8, first) };
    let mut owned = Owned { umem: &umem, frames: vec![], chunks: HashSet::new() };
    umem.take_frames().expect("taken once").for_each(|frame| owned.take(frame));
    let mut lent = vec![];
    while !input.is_empty() {
        match input.int_in_range(0..=9)? {
            0 => {
                if let Some(Err(frame)) = owned.give().map(|frame| rx.offer(frame)) {
                    owned.take(frame);
                }
                Receive::commit(&mut rx);
            }
            1 => {
                if let Some(mut frame) = owned.give() {
                    let _ =
                        frame.set_len(input.int_in_range(0..=4096)?) && frame.adjust_head(input.arbitrary()?);
                    if input.arbitrary()? {
                        if let Some(Err(other)) = owned.give().map(|other| frame.append(other)) {
                            owned.take(other);
                        }
                    }
                    if let Err(frame) = tx.send(frame) {
                        owned.take(frame);
                    }
                }
                Transmit::commit(&mut tx);
            }
            2 => drop(far.fill.consume(8, |addr| lent.push(addr))),
            3 => drop(far.tx.consume(8, |desc| lent.push(desc.addr))),
            4 => {
                let _ = far.rx.push(Desc {
                    addr: address(input, &lent, layout)?,
                    len: len(input)?,
                    options: input.arbitrary()?,
                });
                far.rx.commit();
            }
            5 => {
                let _ = far.completion.push(address(input, &lent, layout)?);
                far.completion.commit();
            }
            6 => {
                let n = input.arbitrary::<u8>()?.into();
                let packets = rx.receive(n, |packet| owned.take(packet));
                assert!(packets <= n);
            }
            7 => drop(tx.reap(|frame| owned.take(frame))),
            8 => {
                let ring = &far.indices[input.int_in_range(0..=3)?];
                let index = input.arbitrary()?;
                if input.arbitrary()? { ring.set_producer(index) } else { ring.set_consumer(index) }
            }
            _ => {
                let desc = Desc { addr: address(input, &lent, layout)?, len: len(input)?, options: 0 };
                let place = umem.locate(desc);
                assert!(place.is_none() || umem.chunk_of(desc.addr).is_some());
                if let (Some(place), Some(chunk)) = (place, umem.chunk_of(desc.addr)) {
                    let base = umem.region().base().as_ptr() as usize;
                    let offset = place.as_ptr() as usize - base;
                    let end = (chunk + u64::from(layout.chunk_size())) as usize;
                    assert!(
                        chunk as usize <= offset && offset + desc.len as usize <= end && end <= layout.len()
                    );
                }
                let _ = umem.hint(desc.addr);
            }
        }
    }
    Ok(())
}

/// One that was lent, near one, in the UMEM, or anywhere.
fn address(input: &mut Unstructured<'_>, lent: &[u64], layout: Layout) -> Result<u64> {
    let mut addr = match input.int_in_range(0..=3)? {
        0 | 1 if !lent.is_empty() => lent[input.choose_index(lent.len())?],
        2 => input.int_in_range(0..=layout.len() as u64 + 64)?,
        _ => input.arbitrary()?,
    };
    if input.ratio(1, 3)? {
        addr = addr.wrapping_add(input.int_in_range(0..=4096)?);
    }
    if layout.is_unaligned() && input.arbitrary()? {
        addr = addr & 0xffff_ffff_ffff | u64::from(input.int_in_range(0..=4200u16)?) << 48;
    }
    Ok(addr)
}

fn len(input: &mut Unstructured<'_>) -> Result<u32> {
    if input.ratio(1, 4)? { input.arbitrary() } else { input.int_in_range(0..=4096) }
}
