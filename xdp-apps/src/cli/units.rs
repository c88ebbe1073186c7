//! Units: numbers as people type them.
#![forbid(unsafe_code)]

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// Splits "12.5ms" into 12.5 and "ms".
fn split(text: &str) -> Option<(f64, &str)> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let number: f64 = number.parse().ok()?;
    number.is_finite().then(|| (number, unit.trim_start()))
}

/// A duration: "10us", "1ms", "2.5s", "1m", "1h"; a bare number is in seconds.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no duration: write it as 500ns, 10us, 1ms, 2s, 5m or 1h");
    let (number, unit) = split(text).ok_or_else(wrong)?;
    let ns = match unit {
        "ns" => 1.0,
        "us" | "µs" => 1e3,
        "ms" => 1e6,
        "" | "s" => 1e9,
        "m" | "min" => 60e9,
        "h" => 3600e9,
        _ => return Err(wrong()),
    };
    let ns = (number * ns).round();
    // A year: longer is a mistake, and would not fit the clock's arithmetic.
    if ns > 31_536_000e9 { Err(wrong()) } else { Ok(Duration::from_nanos(ns as u64)) }
}

/// As [`duration`], but not zero.
pub(crate) fn positive_duration(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("a duration of 0 ends before it begins: give a longer one".to_string()),
        duration => Ok(duration),
    }
}

/// A number of things: "64", "100k", "1.5M", "1G", in thousands.
pub(crate) fn count(text: &str) -> Result<u64, String> {
    scaled(text, 1000.0).ok_or_else(|| format!("`{text}` is no whole number: write it as 64, 100k or 1M"))
}

/// As [`count`], but not zero.
pub(crate) fn positive_count(text: &str) -> Result<u64, String> {
    match count(text)? {
        0 => Err("0 is none at all: give 1 or more, or leave the option out".to_string()),
        count => Ok(count),
    }
}

/// Packets a second: as [`positive_count`]; "pps" may follow.
pub(crate) fn rate(text: &str) -> Result<u64, String> {
    positive_count(text.strip_suffix("pps").unwrap_or(text))
}

/// A size in bytes, or of a ring in entries: "2048", "2k", "1M", in steps of 1024.
pub(crate) fn size(text: &str) -> Result<u32, String> {
    let wrong = || format!("`{text}` is no size: write it as 2048, 2k or 4k");
    u32::try_from(scaled(text, 1024.0).ok_or_else(wrong)?).map_err(|_| wrong())
}

fn scaled(text: &str, step: f64) -> Option<u64> {
    let (number, unit) = split(text)?;
    let number = match unit {
        "" => number,
        "k" | "K" => number * step,
        "m" | "M" => number * step * step,
        "g" | "G" => number * step * step * step,
        _ => return None,
    };
    // Beyond 2^53 an f64 has no odd numbers.
    (number.fract() == 0.0 && number < 9e15).then_some(number as u64)
}

/// Numbers in ranges, in the order given: "0", "0-3", "0,2".
fn list(text: &str) -> Option<Vec<u32>> {
    const MOST: u32 = 4096; // more queues, or cores, than any machine has
    let mut numbers = Vec::new();
    for range in text.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last) = (first.trim().parse::<u32>().ok()?, last.trim().parse::<u32>().ok()?);
        if last < first || last >= MOST {
            return None;
        }
        for number in first..=last {
            if numbers.contains(&number) {
                return None;
            }
            numbers.push(number);
        }
    }
    Some(numbers)
}

/// Which queues: some, or all there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Queues {
    All,
    Some(Vec<u32>),
}

impl FromStr for Queues {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "all" {
            return Ok(Self::All);
        }
        list(text)
            .map(Self::Some)
            .ok_or_else(|| format!("`{text}` names no queues: write 0, 0-3, 0,2 or all, each queue once"))
    }
}

impl fmt::Display for Queues {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Some(queues) => {
                let words: Vec<_> = queues.iter().map(ToString::to_string).collect();
                f.write_str(&words.join(","))
            }
        }
    }
}

/// Which cores.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cores(pub(crate) Vec<usize>);

impl FromStr for Cores {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let cores = list(text);
        let cores =
            cores.ok_or_else(|| format!("`{text}` names no cores: write 1, 0-3 or 0,2, each core once"))?;
        Ok(Self(cores.into_iter().map(|core| core as usize).collect()))
    }
}

/// An interface, and perhaps its queues: "eth1", "eth1:2", "eth1:0-3", "eth1:all".
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InterfaceSpec {
    pub(crate) name: String,
    pub(crate) queues: Option<Queues>,
}

impl FromStr for InterfaceSpec {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, queues) = match text.split_once(':') {
            Some((name, queues)) => (name, Some(queues.parse()?)),
            None => (text, None),
        };
        // What the kernel's dev_valid_name refuses.
        if name.is_empty() || name.len() > 15 || name.contains(|c: char| c == '/' || c.is_whitespace()) {
            return Err(format!(
                "`{name}` cannot name an interface: it has 1 to 15 bytes, no `/` and no space"
            ));
        }
        Ok(Self { name: name.to_string(), queues })
    }
}

/// A number with its thousands apart: "1,234,567".
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_bare_ones_are_seconds() {
        for (text, ns) in [
            ("1ms", 1_000_000),
            ("10us", 10_000),
            ("500ns", 500),
            ("2.5s", 2_500_000_000),
            ("3", 3_000_000_000),
            ("1h", 3_600_000_000_000),
            ("0", 0),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_nanos(ns)), "{text}");
        }
        for text in ["", "ms", "1 fortnight", "-1s", "1e9s", "1..2s", "999999h", "inf"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(positive_duration("0ms").is_err());
    }

    #[test]
    fn counts_go_by_the_thousand_and_sizes_by_1024() {
        assert_eq!((count("100k"), count("1.5M"), count("64")), (Ok(100_000), Ok(1_500_000), Ok(64)));
        assert_eq!((size("2k"), size("2048"), size("1M")), (Ok(2048), Ok(2048), Ok(1 << 20)));
        assert_eq!((rate("100kpps"), rate("5")), (Ok(100_000), Ok(5)));
        for text in ["1.5", "k", "-3", "10x", "", "99999999999999999999"] {
            assert!(count(text).is_err(), "{text}");
        }
        assert!(size("8G").is_err() && rate("0").is_err() && positive_count("0").is_err());
    }

    #[test]
    fn queues_are_a_list_with_ranges_or_all_of_them() {
        assert_eq!("0-3".parse(), Ok(Queues::Some(vec![0, 1, 2, 3])));
        assert_eq!("2,0".parse(), Ok(Queues::Some(vec![2, 0])));
        assert_eq!("all".parse(), Ok(Queues::All));
        for text in ["", "3-1", "0,0", "1-", "a", "0-99999999"] {
            assert!(text.parse::<Queues>().is_err(), "{text}");
        }
    }

    #[test]
    fn an_interface_may_carry_its_queues() {
        let spec = |text: &str| text.parse::<InterfaceSpec>();
        assert_eq!(spec("veth0"), Ok(InterfaceSpec { name: "veth0".into(), queues: None }));
        assert_eq!(spec("veth0:1").unwrap().queues, Some(Queues::Some(vec![1])));
        for text in ["", ":0", "a b", "a/b", "a-name-of-16-byte", "eth0:"] {
            assert!(spec(text).is_err(), "{text}");
        }
    }

    #[test]
    fn thousands_are_set_apart() {
        let shown: Vec<_> = [0, 999, 1000, 1_234_567].map(thousands).into();
        assert_eq!(shown, ["0", "999", "1,000", "1,234,567"]);
    }
}
