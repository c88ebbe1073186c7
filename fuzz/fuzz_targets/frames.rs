//! Frames do what a model does that keeps each chunk's bytes, its packet's place and its fragments: nothing leads out of a
//! chunk, nothing is lost between a pool, packets of several frames and a ring's descriptors.

#![no_main]

use libfuzzer_sys::arbitrary::{Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use std::collections::HashMap;
use xdp_core::{Frame, Layout, Pool, Umem};

const CHUNKS: u32 = 8;
/// Bytes at a chunk's start where a link may have been written, which the model does not know.
const LINK: usize = 24;

/// A fragment: its chunk's address in memory, and its packet's place there.
#[derive(Clone, Debug)]
struct Place {
    chunk: usize,
    start: usize,
    len: usize,
}

struct Model {
    size: usize,
    start: usize,
    bytes: HashMap<usize, Vec<u8>>,
}

impl Model {
    fn fresh(&mut self, frame: &Frame<'_>) -> Place {
        assert_eq!((frame.len(), frame.headroom(), frame.chunks()), (0, self.start, 1));
        let chunk = frame.as_ptr() as usize - self.start;
        self.bytes.entry(chunk).or_insert_with(|| vec![0; self.size]);
        Place { chunk, start: self.start, len: 0 }
    }

    /// Whether the packet is what the model has.
    fn check(&self, frame: &Frame<'_>, places: &[Place]) {
        assert_eq!((frame.chunks(), frame.has_more()), (places.len(), places.len() > 1));
        assert_eq!(frame.packet_len(), places.iter().map(|place| place.len).sum());
        let mut left = places.len();
        for (fragment, place) in frame.fragments().zip(places) {
            left -= 1;
            assert_eq!(fragment.as_ptr() as usize, place.chunk + place.start);
            assert_eq!(
                (fragment.len(), fragment.tailroom()),
                (place.len, self.size - place.start - place.len)
            );
            assert_eq!(fragment.headroom(), place.start - if left > 0 { LINK } else { 0 });
            let known = place.start.max(LINK);
            let end = place.start + place.len;
            if known < end {
                assert_eq!(fragment[known - place.start..], self.bytes[&place.chunk][known..end]);
            }
        }
    }
}

fuzz_target!(|bytes: &[u8]| {
    let _ = run(&mut Unstructured::new(bytes)); // too few bytes: the end of this input
});

fn run(input: &mut Unstructured<'_>) -> Result<()> {
    let layout = match input.int_in_range(0..=2)? {
        0 => Layout::new(2048, CHUNKS),
        1 => Layout::new(4096, CHUNKS),
        _ => Layout::unaligned(input.int_in_range(2048..=4096)?, CHUNKS),
    };
    let layout = layout.and_then(|layout| layout.with_headroom(input.int_in_range(0..=1344).unwrap_or(0)));
    let layout = layout.expect("within what the kernel takes");
    let umem = Umem::heap(layout);
    let mut pool = Pool::new(umem.take_frames().expect("taken once"));
    let (size, start) = (layout.chunk_size() as usize, layout.packet_start() as usize);
    let mut model = Model { size, start, bytes: HashMap::new() };
    let mut held: Vec<(Frame<'_>, Vec<Place>)> = vec![];
    while !input.is_empty() {
        let which = usize::from(input.arbitrary::<u8>()?);
        let op = input.int_in_range(0..=11)?;
        if op == 0 || held.is_empty() {
            assert_eq!(
                pool.is_empty(),
                held.iter().map(|(_, places)| places.len()).sum::<usize>() == CHUNKS as usize
            );
            if let Some(frame) = pool.take() {
                let place = model.fresh(&frame);
                held.push((frame, vec![place]));
            } else {
                let (frame, _) = held.pop().expect("the pool is empty, so all are held");
                pool.put(frame);
            }
            continue;
        }
        let which = which % held.len();
        let (frame, places) = &mut held[which];
        let first = if places.len() > 1 { LINK } else { 0 };
        let place = &mut places[0];
        match op {
            1 => {
                let delta: i32 = delta(input)?;
                let to = place.start as i64 + i64::from(delta);
                let fits = to >= first as i64 && to <= (place.start + place.len) as i64;
                assert_eq!(frame.adjust_head(delta), fits, "{delta} of {place:?}");
                if fits {
                    place.len = place.start + place.len - to as usize;
                    place.start = to as usize;
                }
            }
            2 => {
                let delta: i32 = delta(input)?;
                let len = place.len as i64 + i64::from(delta);
                let fits = len >= 0 && place.start as i64 + len <= size as i64;
                assert_eq!(frame.adjust_tail(delta), fits);
                if fits {
                    place.len = len as usize;
                }
            }
            3 => {
                let len =
                    if input.ratio(1, 8)? { input.arbitrary()? } else { input.int_in_range(0..=4096)? };
                let fits = len <= size - place.start;
                assert_eq!(frame.set_len(len), fits);
                if fits {
                    place.len = len;
                }
            }
            4 => {
                let bytes = vec![input.arbitrary()?; input.int_in_range(0..=4096)?];
                let fits = bytes.len() <= size - place.start;
                assert_eq!(frame.write(&bytes), fits);
                if fits {
                    place.len = bytes.len();
                    model.bytes.get_mut(&place.chunk).unwrap()[place.start..][..bytes.len()]
                        .copy_from_slice(&bytes);
                }
            }
            5 => {
                let byte = input.arbitrary()?;
                frame.for_each_fragment(|bytes| bytes.fill(byte));
                for place in places.iter() {
                    model.bytes.get_mut(&place.chunk).unwrap()[place.start..][..place.len].fill(byte);
                }
            }
            6 => {
                let byte = input.arbitrary()?;
                assert_eq!(frame.head().len(), place.start - first);
                frame.head_mut().fill(byte);
                model.bytes.get_mut(&place.chunk).unwrap()[first..place.start].fill(byte);
            }
            7 => {
                let (other, their_places) = held.swap_remove(which);
                let Some((frame, places)) = held.first_mut() else {
                    held.push((other, their_places));
                    continue;
                };
                let fits = places.last().unwrap().start >= LINK;
                match frame.append(other) {
                    Ok(()) => {
                        assert!(fits);
                        places.extend(their_places);
                    }
                    Err(other) => {
                        assert!(!fits);
                        held.push((other, their_places));
                    }
                }
            }
            8 => {
                let rest = frame.take_rest();
                let their_places = places.split_off(1);
                assert_eq!(rest.is_some(), !their_places.is_empty());
                if let Some(rest) = rest {
                    held.push((rest, their_places));
                }
            }
            9 => {
                let (frame, places) = held.swap_remove(which);
                let before = pool.len();
                pool.put(frame);
                assert_eq!(pool.len(), before + places.len());
            }
            10 if places.len() == 1 => {
                let (frame, places) = held.swap_remove(which);
                let port = input.arbitrary()?;
                let mut frame = frame;
                frame.set_port(port);
                assert_eq!(frame.port(), port);
                let desc = frame.into_desc(&umem);
                assert_eq!(
                    umem.locate(desc).map(|at| at.as_ptr() as usize),
                    Some(places[0].chunk + places[0].start)
                );
                // SAFETY: the chunk was just given up, and nobody else was told its name.
                let frame = unsafe { Frame::from_desc(desc, &umem) }.expect("it was ours");
                held.push((frame, places));
            }
            _ if places.len() == 1 => {
                let (frame, mut places) = held.swap_remove(which);
                let addr = frame.into_chunk(&umem);
                let desc = xdp_core::Desc { addr, len: 0, options: 0 };
                // SAFETY: as above.
                let frame = unsafe { Frame::from_desc(desc, &umem) }.expect("it was ours");
                (places[0].start, places[0].len) = (0, 0);
                held.push((frame, places));
            }
            _ => assert!(!frame.is_plain(), "it has more"),
        }
        for (frame, places) in &held {
            model.check(frame, places);
        }
        assert_eq!(pool.len() + held.iter().map(|(_, places)| places.len()).sum::<usize>(), CHUNKS as usize);
    }
    held.into_iter().for_each(|(frame, _)| pool.put(frame));
    assert_eq!(pool.len(), CHUNKS as usize);
    Ok(())
}

/// Mostly one that may fit.
fn delta(input: &mut Unstructured<'_>) -> Result<i32> {
    if input.ratio(1, 8)? { input.arbitrary() } else { input.int_in_range(-4200..=4200) }
}
