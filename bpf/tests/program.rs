//! The programs, run by the kernel on packets (BPF_PROG_TEST_RUN): the fixtures of `packets/`, and random rules on random packets.

mod common;

use common::{keep_documented_capabilities, privileged, xdp_socket};
use std::fs;
use std::path::Path;
use xdp_bpf::insn::{Insn, Reg};
use xdp_bpf::{AttachError, LoadOptions, Ports, Program, Rule, Rules, Verdict, XskMap};
use xdp_umem::Errno;

/// A program whose matches are redirected: slot 0 of its map has a socket.
fn load(rules: &Rules, map: &XskMap) -> Program {
    Program::redirect(rules, map, 0, LoadOptions::default())
        .unwrap_or_else(|error| panic!("{rules}: {error}"))
}

fn map_with_a_socket() -> (XskMap, xdp_umem::Fd) {
    let (map, socket) = (XskMap::new(1).unwrap(), xdp_socket());
    map.set(0, &socket).unwrap();
    (map, socket)
}

/// A packet, and the rule sets that redirect it or let it pass.
struct Fixture {
    name: String,
    packet: Vec<u8>,
    expected: Vec<(Rules, bool)>,
}

fn fixtures() -> Vec<Fixture> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("packets");
    let mut paths: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "hex"));
    paths.sort();
    paths.iter().map(|path| fixture(path)).collect()
}

fn fixture(path: &Path) -> Fixture {
    let name = path.file_stem().unwrap().to_string_lossy().into_owned();
    let (mut packet, mut expected) = (Vec::new(), Vec::new());
    for line in fs::read_to_string(path).unwrap().lines() {
        if let Some(comment) = line.strip_prefix('#') {
            for (word, redirected) in [("redirect:", true), ("pass:", false)] {
                let sets = comment.trim().strip_prefix(word).into_iter().flat_map(|sets| sets.split(';'));
                expected.extend(
                    sets.map(|set| (set.parse().unwrap_or_else(|e| panic!("{name}: {e}")), redirected)),
                );
            }
        } else {
            let bytes = line.split_whitespace().map(|byte| u8::from_str_radix(byte, 16));
            packet.extend(bytes.map(|byte| byte.unwrap_or_else(|error| panic!("{name}: {error}"))));
        }
    }
    for verdict in [true, false] {
        assert!(
            expected.iter().any(|(_, redirected)| *redirected == verdict),
            "{name} expects {verdict} of no rule set"
        );
    }
    Fixture { name, packet, expected }
}

#[test]
fn the_reference_gives_each_fixture_its_verdicts() {
    let fixtures = fixtures();
    assert!(fixtures.len() >= 30, "the fixtures are there");
    for Fixture { name, packet, expected } in fixtures {
        for (rules, redirected) in expected {
            assert_eq!(rules.matches(&packet), redirected, "{name}: {rules}");
        }
    }
}

#[test]
fn the_kernel_gives_each_fixture_its_verdicts() {
    if !privileged() {
        return;
    }
    let (map, _socket) = map_with_a_socket();
    for Fixture { name, packet, expected } in fixtures() {
        for (rules, redirected) in expected {
            let run = load(&rules, &map).test_run(&packet, 1).unwrap();
            let verdict = if redirected { Verdict::Redirect } else { Verdict::Pass };
            assert_eq!(run.verdict, verdict, "{name}: {rules}");
            assert_eq!(run.data, packet, "{name}: the program changes nothing");
        }
    }
}

#[test]
fn random_packets_meet_the_same_verdict_in_the_kernel_as_in_the_reference() {
    if !privileged() {
        return;
    }
    let (map, _socket) = map_with_a_socket();
    let mut random = Random(0x5eed_0001);
    let (mut redirected, mut passed) = (0, 0);
    for round in 0..600 {
        let rules = random.rules();
        let program = load(&rules, &map);
        for _ in 0..50 {
            let packet = random.packet();
            let verdict = program.test_run(&packet, 1).unwrap().verdict;
            let expected = if rules.matches(&packet) { Verdict::Redirect } else { Verdict::Pass };
            assert_eq!(verdict, expected, "round {round}: {rules} on {packet:02x?}");
            match verdict {
                Verdict::Redirect => redirected += 1,
                _ => passed += 1,
            }
        }
    }
    println!("{redirected} redirected, {passed} passed, all as in the reference");
    assert!(
        redirected > 3000 && passed > 3000,
        "both verdicts are tried: {redirected} redirected, {passed} passed"
    );
}

#[test]
fn a_random_rule_set_is_the_same_after_being_written_and_read() {
    let mut random = Random(0x5eed_0002);
    for _ in 0..5000 {
        let rules = random.rules();
        // Contradictions can be built, but are refused when read.
        let contradicts = |rule: &Rule| rule.to_string().parse::<Rule>().is_err();
        match rules.to_string().parse::<Rules>() {
            Ok(read) => assert_eq!(read, rules),
            Err(error) => assert!(
                rules.as_slice().iter().any(contradicts) && error.why.contains("no packet can match"),
                "{error}"
            ),
        }
    }
}

#[test]
fn hundreds_of_rules_pass_the_verifier() {
    if !privileged() {
        return;
    }
    let (map, _socket) = map_with_a_socket();
    let rule = |i: u16| {
        let rule = Rule::all()
            .dst_mac([2, 0, 0, 0, (i >> 8) as u8, i as u8])
            .vlan(i)
            .udp_port(Ports::between(i, i + 5));
        rule.udp_src_port(i)
    };
    let rules = Rules::any_of((0..300).map(rule));
    let program = load(&rules, &map);
    let mut packet = fixtures().into_iter().find(|fixture| fixture.name == "vlan-udp4").unwrap().packet;
    assert_eq!(program.test_run(&packet, 1).unwrap().verdict, Verdict::Pass);
    packet[4..6].copy_from_slice(&299u16.to_be_bytes()); // the MAC's end
    packet[14..16].copy_from_slice(&299u16.to_be_bytes()); // the VLAN id
    packet[38..40].copy_from_slice(&299u16.to_be_bytes()); // the ports
    packet[40..42].copy_from_slice(&304u16.to_be_bytes());
    assert!(rules.matches(&packet));
    assert_eq!(program.test_run(&packet, 1).unwrap().verdict, Verdict::Redirect);
}

#[test]
fn every_rule_set_loads_with_the_documented_capabilities_alone() {
    if !privileged() {
        return;
    }
    // Of a thread, not of the process. Without CAP_PERFMON the verifier is stricter about pointers.
    let test = std::thread::spawn(|| {
        keep_documented_capabilities();
        let (map, _socket) = map_with_a_socket();
        let mut random = Random(0x5eed_0003);
        (0..200).for_each(|_| drop(load(&random.rules(), &map)));
        for Fixture { name, packet, expected } in fixtures() {
            for (rules, redirected) in expected {
                let verdict = load(&rules, &map).test_run(&packet, 1).unwrap().verdict;
                assert_eq!(verdict == Verdict::Redirect, redirected, "{name}: {rules}");
            }
        }
        for program in [Program::pass(), Program::drop_all(), Program::tx()] {
            assert!(program.is_ok(), "{program:?}");
        }
    });
    test.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
}

#[test]
fn a_packet_whose_slot_is_empty_passes() {
    if !privileged() {
        return;
    }
    let (map, socket) = (XskMap::new(4).unwrap(), xdp_socket());
    let verdict = |first_index| {
        let program =
            Program::redirect(&Rules::all(), &map, first_index, LoadOptions::default().frags(true)).unwrap();
        program.test_run(&[0; 60], 1).unwrap().verdict
    };
    assert_eq!(verdict(0), Verdict::Pass);
    map.set(3, &socket).unwrap();
    assert_eq!(
        [0, 3, 4, u32::MAX].map(verdict),
        [Verdict::Pass, Verdict::Redirect, Verdict::Pass, Verdict::Pass]
    );
    map.clear(3).unwrap();
    assert_eq!(verdict(3), Verdict::Pass);
    map.set(3, &socket).unwrap();
    drop(socket);
    assert_eq!(verdict(3), Verdict::Pass, "a closed socket leaves the map");
}

#[test]
fn a_map_says_what_is_wrong_with_a_socket_or_an_index() {
    if !privileged() {
        return;
    }
    let (map, socket) = (XskMap::new(4).unwrap(), xdp_socket());
    let udp = xdp_umem::sys::socket(libc::AF_INET, libc::SOCK_DGRAM, 0).unwrap();
    let beyond = map.set(4, &socket).unwrap_err();
    assert_eq!(
        beyond.to_string(),
        "put socket into XSKMAP slot 4 of 4: E2BIG; the map has no such slot; create it with more, or use a smaller index"
    );
    assert_eq!(map.set(0, &udp).unwrap_err().errno(), Some(Errno::EOPNOTSUPP));
    assert_eq!(map.set(0, map.fd()).unwrap_err().errno(), Some(Errno::ENOTSOCK));
    assert_eq!(map.clear(9).unwrap_err().errno(), Some(Errno::EINVAL));
    assert_eq!(XskMap::new(0).unwrap_err().errno(), Some(Errno::EINVAL));
}

#[test]
fn the_fixed_programs_do_what_their_names_say() {
    if !privileged() {
        return;
    }
    let packet: Vec<u8> = (0..60).collect();
    let run = |program: Program| program.test_run(&packet, 1).unwrap();
    let (pass, drop, tx) = (Program::pass().unwrap(), Program::drop_all().unwrap(), Program::tx().unwrap());
    assert_eq!([pass.name(), drop.name(), tx.name()], ["xdp_pass", "xdp_drop", "xdp_tx"]);
    assert!(pass.id() > 0 && drop.id() != pass.id());
    assert_eq!((run(pass).verdict, run(drop).verdict), (Verdict::Pass, Verdict::Drop));
    let run = run(tx);
    assert_eq!(run.verdict, Verdict::Tx);
    assert_eq!(run.data[..12], [6, 7, 8, 9, 10, 11, 0, 1, 2, 3, 4, 5]);
    assert_eq!(run.data[12..], packet[12..]);
}

#[test]
fn the_verifiers_last_words_are_in_the_error() {
    if !privileged() {
        return;
    }
    let refused = |name, insns: &[Insn]| Program::load(name, insns, LoadOptions::default()).unwrap_err();
    let unread = refused("bad", &[Insn::mov(Reg::R0, Reg::R5), Insn::exit()]);
    assert!(matches!(&unread, AttachError::Verifier { errno: Errno::EACCES, .. }), "{unread}");
    assert!(unread.to_string().contains("R5 !read_ok"), "{unread}");
    // A log beyond the first buffer: its end is what is kept.
    let mut long: Vec<Insn> = (0..20_000).map(|i| Insn::mov(Reg::R0, i)).collect();
    long.extend([Insn::mov(Reg::R0, Reg::R5), Insn::exit()]);
    assert!(refused("long", &long).to_string().contains("R5 !read_ok"));
    // No word of the verifier's: the attributes are at fault.
    let unnamed = refused("not a name", &[Insn::mov(Reg::R0, 2), Insn::exit()]);
    assert!(unnamed.to_string().contains("EINVAL; a name has letters"), "{unnamed}");
    assert_eq!(refused("none", &[]).errno(), Some(Errno::E2BIG));
    let short = Program::pass().unwrap().test_run(&[0; 13], 1).unwrap_err();
    assert!(short.to_string().contains("13 bytes: EINVAL; a test packet has 14"), "{short}");
}

/// Seeded, so that a failure comes back (splitmix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }

    // Few values, so that packets and rules meet.
    fn mac(&mut self) -> [u8; 6] {
        self.pick(&[[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 1, 0], [0xff; 6], [2, 0, 0, 1, 0, 1]])
    }

    fn vlan(&mut self) -> u16 {
        self.pick(&[0, 1, 100, 4095])
    }

    fn ether_type(&mut self) -> u16 {
        self.pick(&[0x0800, 0x0800, 0x0800, 0x86dd, 0x86dd, 0x86dd, 0x0806, 0x88b5, 0x8100, 0x88a8, 0x0008])
    }

    fn protocol(&mut self) -> u8 {
        self.pick(&[17, 17, 17, 6, 6, 1, 58, 47, 0, 43, 44, 60, 255])
    }

    fn port(&mut self) -> u16 {
        self.pick(&[0, 1, 53, 4999, 5000, 5001, 0x8813, 65534, 65535])
    }

    fn ports(&mut self) -> Ports {
        match self.below(3) {
            0 => self.port().into(),
            1 => Ports::between(self.port(), self.port()),
            _ => Ports::between(0, self.port()),
        }
    }

    fn rules(&mut self) -> Rules {
        let n = 1 + self.below(8);
        Rules::any_of((0..n).map(|_| self.rule()).collect::<Vec<_>>())
    }

    fn rule(&mut self) -> Rule {
        let mut rule = Rule::all();
        if self.one_in(8) {
            rule = rule.dst_mac(self.mac());
        }
        if self.one_in(8) {
            rule = rule.vlan(self.vlan());
        }
        if self.one_in(6) {
            rule = rule.ether_type(self.ether_type());
        }
        match self.below(8) {
            0 => rule = rule.ip_protocol(self.protocol()),
            1 => rule = rule.udp_port(self.ports()),
            2 => rule = rule.udp_src_port(self.ports()),
            3 => rule = rule.udp_port(self.ports()).udp_src_port(self.ports()),
            4 => rule = rule.tcp_port(self.ports()),
            5 => rule = rule.tcp_src_port(self.ports()),
            _ => {}
        }
        // A rule without a condition makes all the others idle: seldom.
        if rule == Rule::all() && !self.one_in(20) { rule.udp_port(self.ports()) } else { rule }
    }

    /// A packet of known parts, some of them bent, some cut short: 14 bytes or more, as the kernel wants them.
    fn packet(&mut self) -> Vec<u8> {
        let mut packet = Vec::from(self.mac());
        packet.extend(self.mac());
        for _ in 0..self.pick(&[0, 0, 0, 1, 1, 2, 2, 3]) {
            packet.extend(self.pick(&[0x8100u16, 0x88a8]).to_be_bytes());
            packet.extend((self.vlan() | self.pick(&[0, 0x1000, 0x2000, 0xf000])).to_be_bytes());
        }
        let ether_type = self.ether_type();
        packet.extend(ether_type.to_be_bytes());
        let mut ends = vec![packet.len()]; // of headers
        match ether_type {
            0x0800 => self.ipv4(&mut packet, &mut ends),
            0x86dd => self.ipv6(&mut packet, &mut ends),
            _ => {}
        }
        packet.extend((0..self.below(40)).map(|_| self.next() as u8).collect::<Vec<_>>());
        if self.one_in(4) {
            let at = self.below(packet.len() as u64) as usize;
            packet[at] = self.next() as u8;
        }
        match self.below(6) {
            0 => packet.truncate(self.below(packet.len() as u64 + 1) as usize),
            1 => packet.truncate(self.pick(&ends) + self.below(3) as usize - 1),
            _ => {}
        }
        packet.resize(packet.len().max(14), 0);
        packet
    }

    fn ipv4(&mut self, packet: &mut Vec<u8>, ends: &mut Vec<usize>) {
        let protocol = self.protocol();
        let options = if self.one_in(3) { self.below(11) as u8 } else { 0 };
        let mut header = [0; 20];
        header[0] =
            if self.one_in(8) { self.pick(&[0x44, 0x40, 0x35, 0x50, 0x55, 0x65]) } else { 0x45 + options };
        let fragment = self.pick(&[0u16, 0, 0, 0x4000, 0x2000, 0x2001, 0x00ff, 0x1000, 0x8000]);
        header[6..8].copy_from_slice(&fragment.to_be_bytes());
        header[9] = protocol;
        packet.extend(header);
        ends.push(packet.len());
        packet.extend((0..4 * options).map(|_| self.next() as u8).collect::<Vec<_>>());
        self.transport(packet, ends);
    }

    fn ipv6(&mut self, packet: &mut Vec<u8>, ends: &mut Vec<usize>) {
        let mut header = [0; 40];
        header[0] = if self.one_in(8) { self.pick(&[0x40, 0x50, 0x6f, 0x70, 0xe0]) } else { 0x60 };
        let mut next = self.protocol();
        header[6] = next;
        packet.extend(header);
        ends.push(packet.len());
        for _ in 0..8 {
            if !matches!(next, 0 | 43 | 44 | 60) {
                break;
            }
            let fragment = next == 44;
            next = self.protocol();
            let len = if fragment { 0 } else { self.below(4) };
            let mut extension = vec![0; 8 * (len as usize + 1)];
            extension[0] = next;
            extension[1] = if fragment { self.next() as u8 } else { len as u8 };
            if fragment {
                extension[3] = self.pick(&[0, 1, 6, 8, 0xf9]);
            }
            packet.extend(extension);
            ends.push(packet.len());
        }
        self.transport(packet, ends);
    }

    fn transport(&mut self, packet: &mut Vec<u8>, ends: &mut Vec<usize>) {
        let start = packet.len();
        ends.extend([start, start + 8, start + 20]);
        packet.extend(self.port().to_be_bytes());
        packet.extend(self.port().to_be_bytes());
        let len = self.pick(&[4, 4, 16, 16, 3, 15, 0]);
        packet.extend((0..len).map(|_| self.next() as u8).collect::<Vec<_>>());
    }
}
