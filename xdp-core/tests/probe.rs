//! The contract probes on a veth pair. Without the privilege each test says that it is skipped.

use core::time::Duration;
use xdp_core::cpu::{self, Cap};
use xdp_core::netdev::packet::PacketSender;
use xdp_core::netdev::{End, Interface, Mac, Namespace, NewLink, Setting};
use xdp_core::probe::{self, Contract, NeedWakeup, ProbeOptions};
use xdp_core::{Attachment, BusyPoll, Mode, Rules, XskConfig};
use xdp_umem::Errno;

/// Whether everything here may be done; says so if not.
fn privileged() -> bool {
    let missing = cpu::missing(&[Cap::NetAdmin, Cap::NetRaw, Cap::SysAdmin, Cap::Bpf]).unwrap();
    if !missing.is_empty() {
        println!("skipped: without {missing:?}");
    }
    missing.is_empty()
}

/// Two namespaces with the ends `a` and `b` of a pair, up, without addresses.
fn pair(queues: u32) -> (Namespace, Namespace) {
    let (left, right) = (Namespace::anonymous().unwrap(), Namespace::anonymous().unwrap());
    let near = End::new("a").in_namespace(&left).mac(Mac::local(1));
    let far = End::new("b").in_namespace(&right).mac(Mac::local(2));
    let [a, b] = NewLink::veth(near, far).queues(queues).create_pair().unwrap();
    for (namespace, end) in [(&left, &a), (&right, &b)] {
        let up = || end.set_ipv6_autoconfigured(false).and_then(|()| end.set_up(true));
        namespace.run(up).unwrap().unwrap();
    }
    left.run(|| a.wait_operational(Duration::from_secs(5))).unwrap().unwrap();
    (left, right)
}

fn probe_a(left: &Namespace, options: ProbeOptions<'_>) -> Result<Contract, xdp_core::Error> {
    // a probe's options borrow what only this thread may use, so this thread goes to the namespace
    let home = Namespace::current().unwrap();
    left.enter().unwrap();
    let found = probe::probe(&Interface::named("a").unwrap(), options);
    home.enter().unwrap();
    found
}

#[test]
fn a_veth_copies_sends_when_kicked_and_polls_nothing() {
    if !privileged() {
        return;
    }
    let (left, right) = pair(1);
    let b = right.run(|| Interface::named("b").unwrap()).unwrap();
    let sender = right.run(|| PacketSender::on(&b)).unwrap().unwrap();
    let mut sent = 0;
    let mut traffic = |packet: &[u8]| {
        sent += 1;
        sender.send(packet).is_ok()
    };
    let options = ProbeOptions { traffic: Some(&mut traffic), ..ProbeOptions::default() };
    let contract = probe_a(&left, options).unwrap();
    println!("{contract}");
    assert!(!contract.zero_copy, "no veth has it");
    assert_eq!(contract.driver.as_deref(), Some("veth"));
    let kick = contract.kick.as_value().unwrap();
    assert!(kick.sent && !kick.unasked && kick.kicks >= 1 && kick.completed_us.is_some(), "{kick:?}");
    assert_eq!(contract.need_wakeup, Setting::Value(NeedWakeup::Constant), "copy mode");
    let invalid = contract.invalid_descriptor.as_value().unwrap();
    assert!(invalid.counted && invalid.next_is_sent, "{invalid:?}");
    let busy_poll = contract.busy_poll.as_value().unwrap();
    if cpu::kernel_version() >= (6, 15) {
        assert_eq!((busy_poll.napi_id, busy_poll.is_effective()), (None, Some(false)), "{busy_poll:?}");
    }
    assert!(contract.prefer_busy_poll.reason().unwrap().contains("zero-copy"));
    let receiving = contract.receiving.as_value().unwrap();
    assert_eq!((receiving.arrives, receiving.busy_poll_helps), (true, None));
    let splitting = contract.splitting.as_value().unwrap();
    assert_eq!(splitting.pieces, [1514], "a whole packet of the MTU in one chunk");
    assert!(sent >= 1);
    assert!(contract.binding.first_us > 0 && contract.binding.again_us > 0);

    // and a socket that consults it
    let asked = XskConfig {
        busy_poll: Some(BusyPoll { budget: 64, time_us: 20, prefer: true }),
        ..XskConfig::default()
    };
    let (adapted, notes) = asked.under(&contract).unwrap();
    if busy_poll.napi_id.is_none() {
        assert_eq!((adapted.busy_poll, notes.len()), (None, 1), "{notes:?}");
    }
    // nothing stays behind
    let a = left.run(|| Interface::named("a").unwrap()).unwrap();
    assert!(!a.xdp.any());
}

#[test]
fn a_packet_longer_than_a_chunk_arrives_in_pieces() {
    if !privileged() {
        return;
    }
    let (left, right) = pair(1);
    for (namespace, name) in [(&left, "a"), (&right, "b")] {
        namespace.run(|| Interface::named(name).unwrap().set_mtu(3000)).unwrap().unwrap();
    }
    let b = right.run(|| Interface::named("b").unwrap()).unwrap();
    let sender = right.run(|| PacketSender::on(&b)).unwrap().unwrap();
    let mut traffic = |packet: &[u8]| sender.send(packet).is_ok();
    let options = ProbeOptions { traffic: Some(&mut traffic), ..ProbeOptions::default() };
    let contract = probe_a(&left, options).unwrap();
    let Setting::Value(splitting) = &contract.splitting else {
        return println!("skipped: {:?}", contract.splitting);
    };
    assert_eq!(splitting.pieces.iter().sum::<u32>(), 3014, "{splitting:?}");
    assert!(splitting.pieces.len() > 1 && splitting.multi_buffer, "{splitting:?}");
    let (_, notes) = XskConfig::default().under(&contract).unwrap();
    assert!(notes.iter().any(|note| note.contains("arrives cut")), "{notes:?}");
}

#[test]
fn what_the_host_hangs_on_is_probed_only_by_those_who_insist() {
    if !privileged() {
        return;
    }
    let (left, _right) = pair(1);
    let address = || Interface::named("a").unwrap().add_address("198.18.7.1".parse().unwrap(), 24);
    left.run(address).unwrap().unwrap();
    let error = probe_a(&left, ProbeOptions::default()).unwrap_err();
    assert_eq!(error.errno(), Some(Errno::EPERM));
    assert!(error.to_string().contains("198.18.7.1"), "{error}");
    let contract = probe_a(&left, ProbeOptions { insist: true, ..ProbeOptions::default() }).unwrap();
    assert!(contract.splitting.reason().unwrap().contains("nobody sends"));
    let route = || Interface::named("a").unwrap().add_route("0.0.0.0".parse().unwrap(), 0, None);
    left.run(route).unwrap().unwrap();
    let error = probe_a(&left, ProbeOptions::default()).unwrap_err();
    assert!(error.to_string().contains("default route"), "{error}");
}

#[test]
fn what_cannot_be_probed_is_an_error_or_has_a_reason() {
    if !privileged() {
        return;
    }
    let (left, right) = pair(2);
    let on = |queue| ProbeOptions { queue, ..ProbeOptions::default() };
    assert_eq!(probe_a(&left, on(2)).unwrap_err().errno(), Some(Errno::EINVAL));
    assert_eq!(probe_a(&left, on(1)).unwrap().queue, 1);
    // a program that is there already stays, and is the reason that nothing is received
    let a = left.run(|| Interface::named("a").unwrap()).unwrap();
    let attach = || Attachment::new(a.index, Mode::Native, &Rules::all(), &Default::default()).unwrap();
    let attachment = left.run(attach).unwrap();
    let mut never = |_: &[u8]| -> bool { panic!("nobody is to send") };
    let options = ProbeOptions { traffic: Some(&mut never), ..ProbeOptions::default() };
    let contract = probe_a(&left, options).unwrap();
    assert!(contract.splitting.reason().unwrap().contains("attached already"), "{contract}");
    assert!(left.run(|| a.refresh().unwrap().xdp.any()).unwrap());
    drop(attachment);
    // the other end down: no carrier
    right.run(|| Interface::named("b").unwrap().set_up(false)).unwrap().unwrap();
    let contract = probe_a(&left, on(0)).unwrap();
    assert!(contract.kick.reason().unwrap().contains("no carrier"), "{contract}");
    left.run(|| a.set_up(false)).unwrap().unwrap();
    assert_eq!(probe_a(&left, on(0)).unwrap_err().errno(), Some(Errno::ENETDOWN));
}
