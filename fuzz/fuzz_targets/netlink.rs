//! Netlink messages of any bytes: no view leads out of them, and every walk ends.

#![no_main]

use libfuzzer_sys::fuzz_target;
use xdp_core::netdev::netlink::{Attributes, Message, Request};

fuzz_target!(|bytes: &[u8]| {
    let mut messages = 0;
    for message in Message::parse(bytes) {
        messages += 1;
        inside(message.payload, bytes);
        for skip in [0, 4, 8, 16, usize::MAX] {
            walk(Attributes::parse(message.payload, skip.min(1 << 40)), bytes, 0);
        }
    }
    assert!(messages <= bytes.len() / 16, "each has a header");
    walk(Attributes::parse(bytes, 0), bytes, 0);
    build(bytes);
});

fn inside(part: &[u8], bytes: &[u8]) {
    assert!(part.is_empty() || bytes.as_ptr_range().start <= part.as_ptr_range().start);
    assert!(part.is_empty() || part.as_ptr_range().end <= bytes.as_ptr_range().end);
}

fn walk(attributes: Attributes<'_>, bytes: &[u8], depth: u32) {
    for attribute in attributes {
        inside(attribute.value, bytes);
        let _ = (attribute.uint(), attribute.text(), attributes.u32(attribute.kind));
        assert!(attributes.find(attribute.kind).is_some());
        if depth < 3 {
            walk(attribute.nested(), bytes, depth + 1);
        }
    }
}

/// What a request is made of reads back.
fn build(bytes: &[u8]) {
    let value = &bytes[..bytes.len().min(1000)];
    let request = Request::new(16, 0).u32(1, 7).bytes(2, value).nest(3, |nest| nest.u8(1, 9).bytes(2, value));
    let attributes = Attributes::parse(request.payload(), 0);
    assert_eq!(attributes.u32(1), Some(7));
    assert_eq!(attributes.find(2).map(|attribute| attribute.value), Some(value));
    assert_eq!(attributes.nest(3).uint(1), Some(9));
    assert_eq!(attributes.nest(3).find(2).map(|attribute| attribute.value), Some(value));
}
