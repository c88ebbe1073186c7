//! Journals of any bytes: read without a panic, a line cut short is no step, and nothing is made up.

#![no_main]

use libfuzzer_sys::fuzz_target;
use xdp_core::netdev::journal;

fuzz_target!(|bytes: &[u8]| {
    for bytes in [bytes.to_vec(), [b"xdp-apps journal 1\n", bytes].concat()] {
        let steps = journal::steps_in(&bytes);
        let lines = bytes.iter().filter(|byte| **byte == b'\n').count();
        assert!(steps.len() <= lines);
        for step in &steps {
            assert!(!step.to_string().is_empty()); // what a user is shown of it
        }
        let mut cut = bytes;
        cut.extend(b"do 77 remove-namespace name=cut inode=");
        assert_eq!(journal::steps_in(&cut), steps, "a line without its end was not carried out");
    }
});
