//! What a rule set costs a packet: `cargo run --release -p xdp-bpf --example cost`, as root.
//!
//! The kernel runs each program on one packet a million times and tells the mean (`BPF_PROG_TEST_RUN`). The packet is UDP over IPv4 to port
//! 5000, and every rule set but the first two looks at all of it and lets it pass or redirects it to an unbound socket.

use xdp_bpf::insn::Insn;
use xdp_bpf::{LoadOptions, Program, Rules, XskMap};

const REPEAT: u32 = 1_000_000;
const ROUNDS: usize = 7;

fn main() -> Result<(), Box<dyn core::error::Error>> {
    let map = XskMap::new(1)?;
    let socket = xdp_umem::sys::socket(libc::AF_XDP, libc::SOCK_RAW, 0)?;
    map.set(0, &socket)?;
    println!("{:>8} {:>12} {:>9} {:>9}  rules", "ns min", "ns median", "verdict", "insns");
    measure("pass (no rule, no map)", None, Program::pass()?)?;
    let sixteen: Vec<String> = (0..16).map(|i| format!("udp port {}", 6000 + i)).collect();
    let rule_sets = [
        "all",
        "ether 0x88b5",
        "udp port 5000",
        "udp port 5001",
        "dst-mac 02:00:00:00:00:01 and vlan 7",
        &sixteen.join(" or "),
    ];
    for text in rule_sets {
        let rules: Rules = text.parse()?;
        let insns = rules.compile(map.fd().raw(), 0)?;
        measure(text, Some(&insns), Program::load("xdp_cost", &insns, LoadOptions::default())?)?;
    }
    Ok(())
}

fn measure(what: &str, insns: Option<&[Insn]>, program: Program) -> Result<(), Box<dyn core::error::Error>> {
    let mut packet = [0; 64];
    packet[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2]);
    packet[12..15].copy_from_slice(&[8, 0, 0x45]);
    packet[23] = 17;
    packet[36..38].copy_from_slice(&5000u16.to_be_bytes());
    let mut ns = [0; ROUNDS];
    for ns in &mut ns {
        *ns = program.test_run(&packet, REPEAT)?.duration_ns;
    }
    ns.sort_unstable();
    let verdict = format!("{:?}", program.test_run(&packet, 1)?.verdict);
    println!(
        "{:>8} {:>12} {verdict:>9} {:>9}  {what}",
        ns[0],
        ns[ROUNDS / 2],
        insns.map_or(2, <[Insn]>::len)
    );
    Ok(())
}
