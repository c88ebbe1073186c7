//! Rules of any text: what is understood is shown so that it is understood as the same; what is not makes an error, as
//! does a program that would be too long; and no packet makes the interpreter panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use xdp_bpf::{Rule, Rules};

fuzz_target!(|bytes: &[u8]| {
    let (text, packet) = match bytes.iter().position(|byte| *byte == b'\n') {
        Some(end) => (&bytes[..end], &bytes[end + 1..]),
        None => (bytes, &[][..]),
    };
    let text = String::from_utf8_lossy(text);
    match text.parse::<Rules>() {
        Ok(rules) => {
            let shown = rules.to_string();
            assert_eq!(shown.parse::<Rules>().as_ref(), Ok(&rules), "{text:?} is shown as {shown:?}");
            let any = rules.as_slice().iter().any(|rule| rule.matches(packet));
            assert_eq!(rules.matches(packet), any);
            if let Ok(program) = rules.compile(3, 0) {
                assert!(!program.is_empty());
            }
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
    if let Ok(rule) = text.parse::<Rule>() {
        assert_eq!(rule.to_string().parse::<Rule>(), Ok(rule));
    }
});
