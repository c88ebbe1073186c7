//! The host's settings on veth pairs, in namespaces made for them: read, set, verified, put back. Without the privilege
//! each test says that it is skipped. What is not in a namespace is read, and written only as it is already.

extern crate alloc;

use alloc::collections::{BTreeMap, BTreeSet};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use xdp_core::cpu::{self, Cap, Host};
use xdp_core::netdev::change::{Change, CreateLink, CreateNamespace, Outcome, Undo, WriteFile};
use xdp_core::netdev::ethtool::{self, Channels, Coalescing, Indirection, Rings};
use xdp_core::netdev::facts::{BusyPollDefaults, Facts, Interrupt};
use xdp_core::netdev::genl::{self, NapiSettings};
use xdp_core::netdev::journal::Journal;
use xdp_core::netdev::steer::{Flow, Steer};
use xdp_core::netdev::tune::{self, Knob, PinThread, Promiscuous, Reach, Tune};
use xdp_core::netdev::{End, Error, Interface, Mac, Namespace, NewLink, Setting};
use xdp_core::{Attachment, Mode, Rules};
use xdp_umem::Errno;

/// Whether namespaces and links may be made; says so if not.
fn privileged() -> bool {
    let missing = cpu::missing(&[Cap::NetAdmin, Cap::NetRaw, Cap::SysAdmin]).unwrap();
    if !missing.is_empty() {
        println!("skipped: without {missing:?}");
    }
    missing.is_empty()
}

/// A name nobody else has: of this process, and of this call.
fn fresh_name(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}{}-{}", std::process::id(), NEXT.fetch_add(1, Relaxed))
}

/// The ends `a` and `b` of a pair in that namespace, with two queues.
fn pair_in(namespace: &Namespace) {
    let made = namespace.run(|| {
        let near = End::new("a").mac(Mac::local(1));
        NewLink::veth(near, End::new("b").mac(Mac::local(2))).queues(2).create_pair()
    });
    made.unwrap().unwrap();
}

/// As [`pair_in`], up, with a NAPI instance for each queue of `a`: the kernel makes them with GRO.
fn polled_pair_in(namespace: &Namespace) {
    pair_in(namespace);
    namespace
        .run(|| {
            let [a, b] = ["a", "b"].map(|name| Interface::named(name).unwrap());
            for end in [&a, &b] {
                end.set_ipv6_autoconfigured(false).unwrap();
                end.set_up(true).unwrap();
            }
            assert_eq!(a.set_features(ethtool::GRO, true).unwrap(), Setting::Value(()));
            for end in [&a, &b] {
                end.wait_operational(Duration::from_secs(5)).unwrap();
            }
        })
        .unwrap();
}

fn on<T: Send>(namespace: &Namespace, name: &str, job: impl FnOnce(Interface) -> T + Send) -> T {
    namespace.run(|| job(Interface::named(name).unwrap())).unwrap()
}

/// A directory for journals, gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(fresh_name("xdp-host-"));
        std::fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn the_facts_of_a_veth_say_what_it_has_and_why_it_lacks_the_rest() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::anonymous().unwrap();
    polled_pair_in(&namespace);
    let facts = on(&namespace, "a", |a| Facts::read(&a));
    assert_eq!(facts.lock_out, Setting::Value(None));
    assert_eq!(facts.driver.as_value().unwrap().name, "veth");
    assert_eq!(facts.speed_mbit, Setting::Value(10_000));
    let channels = facts.channels.as_value().unwrap();
    assert_eq!((channels.rx, channels.tx), (Some(2), Some(2)));
    assert_eq!(facts.queues.as_value().map(|queues| (queues.rx, queues.tx)), Some((2, 2)));
    assert!(facts.features.as_value().unwrap().any_on(ethtool::GRO));
    assert_eq!(facts.program, Setting::Value(None));
    for reason in [
        facts.coalescing.reason(),
        facts.indirection.reason(),
        facts.rules.reason(),
        facts.interrupts.reason(),
        facts.numa_node.reason(),
    ] {
        let reason = reason.expect("a veth has neither");
        assert!(reason.contains("not supported") || reason.contains("virtual"), "{reason}");
    }
    assert_eq!(facts.napi_defaults.defer_hard_irqs, Setting::Value(0));
    assert_eq!(facts.napi_defaults.gro_flush_timeout_ns, Setting::Value(0));
    if let Setting::Value(napis) = &facts.napis {
        assert_eq!(napis.len(), 2, "GRO made one for each queue: {napis:?}");
    }
    if let Setting::Value(bound) = facts.bound_queues() {
        assert_eq!(bound, [0; 0]);
    }
}

#[test]
fn a_program_is_named_with_the_process_that_holds_its_link() {
    if !privileged() || !cpu::missing(&[Cap::Bpf]).unwrap().is_empty() {
        return println!("skipped: without CAP_BPF");
    }
    let namespace = Namespace::anonymous().unwrap();
    polled_pair_in(&namespace);
    on(&namespace, "a", |a| {
        let attachment = Attachment::new(a.index, Mode::Native, &Rules::all(), &Default::default()).unwrap();
        let facts = Facts::read(&a.refresh().unwrap());
        let program = facts.program.value().unwrap().expect("it is there");
        assert_eq!(program.attached.id, attachment.program().id());
        assert_eq!(program.attached.mode, Some(Mode::Native));
        assert_eq!(program.attached.name.as_deref(), Some(attachment.program().name()));
        let us = std::process::id();
        assert_eq!(program.processes.iter().map(|one| one.0).collect::<Vec<_>>(), [us]);
        assert!(program.pins.is_empty());
        drop(attachment);
        assert_eq!(Facts::read(&a).program, Setting::Value(None));
    });
}

#[test]
fn what_a_veth_lacks_is_no_error_and_leaves_no_step() {
    if !privileged() {
        return;
    }
    let scratch = Scratch::new();
    let namespace = Namespace::anonymous().unwrap();
    pair_in(&namespace);
    let mut journal = Journal::open_in(&scratch.0).unwrap();
    on(&namespace, "a", |a| {
        let mut coalescing = Coalescing::default();
        coalescing.rx_usecs = Some(0);
        let mut rings = Rings::default();
        rings.rx = Some(1024);
        let knobs = [
            Knob::Coalescing(coalescing),
            Knob::Rings(rings),
            Knob::Indirection(Indirection::Over(vec![0])),
            Knob::features(ethtool::LRO, true),
        ];
        for knob in knobs {
            let set = journal.set(Tune::new(&a, knob.clone())).unwrap();
            let reason = set.reason().unwrap_or_else(|| panic!("a veth has {knob}"));
            assert!(reason.contains("not supported") || reason.contains("can be changed"), "{reason}");
            println!("{knob}: {reason}");
        }
        let steered = journal.set(Steer::new(&a, Flow::udp4(5000), 1)).unwrap();
        assert!(steered.reason().unwrap().contains("not supported"), "{steered:?}");
        let suspend = NapiSettings { irq_suspend_timeout_ns: Some(1), ..NapiSettings::default() };
        let reason = tune::set_napi(&mut journal, &a, None, &suspend).unwrap();
        assert!(reason.reason().unwrap().contains("no NAPI instance"), "{reason:?}");
        let gone = Knob::Napi { id: u32::MAX, settings: suspend };
        if genl::napis(a.index).unwrap().is_some() {
            assert_eq!(journal.set(Tune::new(&a, gone)).unwrap_err().errno(), Errno::ENOENT);
        }
    });
    let governor = cpu::tune::governor(usize::MAX, "performance");
    assert!(journal.set(governor).unwrap().reason().unwrap().contains("no such setting"));
    assert!(journal.is_empty());
}

#[test]
fn a_napi_instance_is_set_by_itself_and_the_device_where_there_is_none() {
    if !privileged() {
        return;
    }
    let scratch = Scratch::new();
    let namespace = Namespace::anonymous().unwrap();
    polled_pair_in(&namespace);
    let mut journal = Journal::open_in(&scratch.0).unwrap();
    on(&namespace, "a", |a| {
        let before = Facts::read(&a);
        let deferral = NapiSettings {
            defer_hard_irqs: Some(2),
            gro_flush_timeout_ns: Some(200_000),
            ..NapiSettings::default()
        };
        let reach = tune::set_napi(&mut journal, &a, Some(0), &deferral).unwrap();
        let after = Facts::read(&a);
        match reach.as_value().unwrap() {
            Reach::Instances(ids) => {
                let napis = after.napis.as_value().unwrap();
                // the driver links no queue to an instance, so both are meant
                assert_eq!(ids.len(), 2);
                assert!(napis.iter().all(|napi| deferral.holds_in(napi)), "{napis:?}");
                assert_eq!(after.napi_defaults, before.napi_defaults, "not the device's own");
            }
            Reach::Device => assert_eq!(after.napi_defaults.defer_hard_irqs, Setting::Value(2)),
        }
        let report = journal.restore();
        assert!(report.is_complete(), "{report}");
        assert_eq!(Facts::read(&a).napis, before.napis);
    });
    // an end that is polled by nobody: the device
    on(&namespace, "b", |b| {
        let before = Facts::read(&b);
        assert!(before.napis.as_value().is_none_or(Vec::is_empty), "{:?}", before.napis);
        let wanted = NapiSettings { defer_hard_irqs: Some(7), ..NapiSettings::default() };
        assert_eq!(tune::set_napi(&mut journal, &b, None, &wanted).unwrap(), Setting::Value(Reach::Device));
        assert_eq!(Facts::read(&b).napi_defaults.defer_hard_irqs, Setting::Value(7));
        assert!(journal.restore().is_complete());
        assert_eq!(Facts::read(&b).napi_defaults, before.napi_defaults);
    });
}

#[test]
fn a_polling_thread_gets_a_core_and_loses_it_again() {
    if !privileged() {
        return;
    }
    let scratch = Scratch::new();
    let namespace = Namespace::anonymous().unwrap();
    polled_pair_in(&namespace);
    let mut journal = Journal::open_in(&scratch.0).unwrap();
    let core = *cpu::allowed().unwrap().last().unwrap();
    on(&namespace, "a", |a| {
        let threaded = NapiSettings { threaded: Some(true), ..NapiSettings::default() };
        let set = tune::set_napi(&mut journal, &a, None, &threaded).unwrap();
        assert!(set.as_value().is_some(), "{set:?}");
        let Some(napis) = genl::napis(a.index).unwrap() else {
            return println!("skipped: before Linux 6.8 nobody tells a NAPI instance's thread");
        };
        let thread = napis[0].pid.expect("it is threaded now");
        let name = std::fs::read_to_string(format!("/proc/{thread}/comm")).unwrap();
        assert!(name.starts_with("napi/a-"), "{name}");
        let before = cpu::allowed_of(thread).unwrap();
        journal.apply(PinThread::new(thread, &[core])).unwrap();
        assert_eq!(cpu::allowed_of(thread).unwrap(), [core]);
        let error = journal.apply(PinThread::new(thread, &[8191])).unwrap_err();
        assert_eq!(error.errno(), Errno::EINVAL, "no such core: {error}");
        // undo the pinning alone, then the rest
        let steps = journal.len();
        let other = PinThread::new(thread, &before).prepare().unwrap();
        assert!(matches!(&other, Undo::PinThread { cores, .. } if cores == &[core]), "{other:?}");
        let report = journal.restore();
        assert!(report.is_complete() && report.lines.len() == steps, "{report}");
        assert!(genl::napis(a.index).unwrap().unwrap().iter().all(|napi| napi.pid.is_none()));
        assert_eq!(other.restore().unwrap(), Outcome::AlreadyGone, "the thread has ended");
    });
}

#[test]
fn an_interface_is_promiscuous_for_as_long_as_somebody_holds_it_so() {
    if !privileged() {
        return;
    }
    let namespace = Namespace::anonymous().unwrap();
    pair_in(&namespace);
    on(&namespace, "a", |a| {
        // a process that another test starts at this moment has the sockets, too, until it runs its program
        let becomes = |count| {
            let read = || a.refresh().unwrap().promiscuity.unwrap();
            (0..1000).any(|_| {
                sleep(Duration::from_millis(1));
                read() == count
            })
        };
        assert!(becomes(0));
        let first = Promiscuous::hold(&a).unwrap();
        let second = Promiscuous::hold(&a).unwrap();
        assert!(becomes(2));
        drop(first);
        assert!(becomes(1));
        drop(second);
        assert!(becomes(0));
        assert_eq!(
            namespace.run(|| Promiscuous::hold(&Interface::named("lo").unwrap()).map(drop)).unwrap(),
            Ok(())
        );
    });
}

#[test]
fn an_interface_that_took_the_name_of_another_is_left_alone() {
    if !privileged() {
        return;
    }
    let scratch = Scratch::new();
    let namespace = Namespace::anonymous().unwrap();
    pair_in(&namespace);
    let mut journal = Journal::open_in(&scratch.0).unwrap();
    on(&namespace, "a", |a| {
        let mut one = Channels::default();
        one.rx = Some(1);
        journal.apply(Tune::new(&a, Knob::Channels(one))).unwrap();
        a.delete().unwrap();
    });
    pair_in(&namespace);
    on(&namespace, "a", |again| {
        let mut one = Channels::default();
        one.rx = Some(1);
        assert_eq!(again.set_channels(&one).unwrap(), Setting::Value(()));
        let report = journal.restore();
        assert_eq!(report.lines[0].1, Ok(Outcome::AlreadyGone), "{report}");
        assert_eq!(again.channels().unwrap().value().unwrap().rx, Some(1), "not ours to set");
    });
}

#[test]
fn a_renamed_interface_is_still_put_back() {
    if !privileged() {
        return;
    }
    let scratch = Scratch::new();
    let namespace = Namespace::anonymous().unwrap();
    pair_in(&namespace);
    let mut journal = Journal::open_in(&scratch.0).unwrap();
    on(&namespace, "a", |a| {
        let mut one = Channels::default();
        one.rx = Some(1);
        journal.apply(Tune::new(&a, Knob::Channels(one))).unwrap();
        a.rename("other").unwrap();
        let report = journal.restore();
        assert_eq!(report.lines[0].1, Ok(Outcome::Undone), "{report}");
        assert_eq!(a.channels().unwrap().value().unwrap().rx, Some(2));
    });
}

#[test]
fn offloads_that_hang_on_another_come_back_with_it() {
    if !privileged() {
        return;
    }
    let scratch = Scratch::new();
    let namespace = Namespace::anonymous().unwrap();
    pair_in(&namespace);
    let mut journal = Journal::open_in(&scratch.0).unwrap();
    on(&namespace, "a", |a| {
        let before = a.features().unwrap();
        assert!(before.as_value().unwrap().any_on(ethtool::TSO));
        journal.apply(Tune::new(&a, Knob::features(ethtool::TX_CHECKSUM, false))).unwrap();
        let between = a.features().unwrap().value().unwrap();
        assert!(!between.any_on(ethtool::TX_CHECKSUM) && !between.any_on(ethtool::TSO), "{between:?}");
        let refused = journal.apply(Tune::new(&a, Knob::features(ethtool::TSO, true))).unwrap_err();
        assert_eq!(refused.errno(), Errno::ERANGE, "not without checksums: {refused}");
        assert!(journal.restore().is_complete());
        assert_eq!(a.features().unwrap(), before);
    });
}

#[test]
fn settings_of_the_whole_machine_are_written_as_they_are_and_read_back() {
    if !privileged() {
        return;
    }
    // nothing changes: each is given the value that it has
    let scratch = Scratch::new();
    let mut journal = Journal::open_in(&scratch.0).unwrap();
    let host = Host::read();
    let mut changes: Vec<(String, WriteFile)> = Vec::new();
    for core in &host.cores {
        for state in core.idle_states.as_value().into_iter().flatten() {
            let what = format!("idle state {} of core {}", state.name, core.id);
            changes.push((what, cpu::tune::idle_state(core.id, state.index, !state.disabled)));
        }
        if let Setting::Value(governor) = &core.governor {
            changes.push((format!("governor of {}", core.id), cpu::tune::governor(core.id, governor)));
        }
    }
    for pages in &host.huge_pages {
        let what = format!("huge pages of {} bytes", pages.size);
        changes.push((what, cpu::tune::huge_pages(pages.size, pages.total)));
    }
    let mut steps = 0;
    for (what, change) in changes {
        match journal.set(change) {
            Ok(Setting::Value(())) => steps += 1,
            Ok(Setting::Unsupported(reason)) => println!("{what}: {reason}"),
            Err(error) if [Errno::EROFS, Errno::EACCES].contains(&error.errno()) => {
                println!("skipped: {what}: {error}");
            }
            Err(error) => panic!("{what}: {error}"),
        }
    }
    assert_eq!(journal.len(), steps);
    let report = journal.restore();
    assert!(report.lines.iter().all(|(_, outcome)| *outcome == Ok(Outcome::AlreadyGone)), "{report}");
}

#[test]
fn the_cores_of_an_interrupt_are_read_and_what_is_no_interrupt_is_absent() {
    assert!(Interrupt::read(u32::MAX).unwrap_err().is_absent());
    let table = std::fs::read_to_string("/proc/interrupts").unwrap();
    let numbers = table.lines().filter_map(|line| line.split_once(':')?.0.trim().parse::<u32>().ok());
    let mut found = 0;
    for number in numbers {
        let Ok(interrupt) = Interrupt::read(number) else { continue };
        assert!(!interrupt.affinity.is_empty() && !interrupt.name.is_empty(), "{interrupt:?}");
        assert_eq!(interrupt.counts.len(), cpu::online().unwrap().len());
        found += 1;
    }
    println!("{found} interrupts; {:?}", BusyPollDefaults::read());
    let mut wrong = cpu::tune::interrupt(u32::MAX, &[0]);
    assert!(wrong.prepare().unwrap_err().is_absent());
}

/// In the virtual machine test bed, where nothing but the test hangs on the card: all that no virtual interface has.
#[test]
fn a_real_card_is_tuned_and_put_back() {
    if std::env::var_os("XDP_TESTBED").is_none() {
        return println!(
            "skipped: needs the test bed's machine (xdp-apps testbed vm -- THIS-BINARY --nocapture)"
        );
    }
    let card = Interface::named("near").unwrap();
    card.set_up(true).unwrap();
    card.wait_operational(Duration::from_secs(10)).unwrap();
    let state = || {
        let Facts { channels, rings, coalescing, indirection, rules, features, interrupts, .. } =
            Facts::read(&card.refresh().unwrap());
        let interrupts = interrupts.map(|all| all.into_iter().map(|one| one.affinity).collect::<Vec<_>>());
        let all: [&dyn core::fmt::Debug; 7] =
            [&channels, &rings, &coalescing, &indirection, &rules, &features, &interrupts];
        all.map(|one| format!("{one:?}"))
    };
    let before = state();
    println!("{before:#?}");
    let scratch = Scratch::new();
    let mut journal = Journal::open_in(&scratch.0).unwrap();
    let mut coalescing = Coalescing::default();
    coalescing.rx_usecs = Some(0);
    let mut rings = Rings::default();
    rings.rx = Some(512);
    let mut channels = Channels::default();
    channels.combined = Some(1);
    let knobs = [
        Knob::features(ethtool::RX_VLAN, false),
        Knob::features(&["rx-ntuple-filter"], true),
        Knob::Coalescing(coalescing),
        Knob::Rings(rings),
        Knob::Indirection(Indirection::Over(vec![0])),
        Knob::Channels(channels),
    ];
    let mut turned = 0;
    for knob in knobs {
        match journal.set(Tune::new(&card, knob.clone())) {
            Ok(Setting::Value(())) => {
                turned += 1;
                println!("in force: {knob}");
            }
            Ok(Setting::Unsupported(reason)) => println!("not here: {knob}: {reason}"),
            Err(error) => println!("refused: {knob}: {error}"),
        }
        if turned == 2 {
            for flow in [Flow::ether(0x88b5), Flow::udp4(5000)] {
                match journal.set(Steer::new(&card, flow, 0)) {
                    Ok(Setting::Value(place)) => println!("in force: {flow} at {place}"),
                    Ok(Setting::Unsupported(reason)) => println!("not here: {flow}: {reason}"),
                    Err(error) => println!("refused: {flow}: {error}"),
                }
            }
        }
    }
    let interrupts = Facts::read(&card).interrupts;
    if let Some(first) = interrupts.as_value().and_then(|all| all.first()) {
        println!("{:?}", journal.set(cpu::tune::interrupt(first.number, &[0])));
    }
    let between = state();
    assert!(turned > 0 && between != before, "{between:#?}");
    let report = journal.restore();
    assert!(report.is_complete(), "{report}");
    println!("{report}");
    for (was, is) in before.iter().zip(state()) {
        assert_eq!(*was, is);
    }
}

// ---- killed at every step -------------------------------------------------------------------------------------------

/// Where a child is to be killed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stop {
    /// With the step recorded and not made.
    Recorded,
    /// With the step made and not verified.
    Made,
    /// With the step verified.
    Done,
}

/// A change during which the process is killed.
struct KilledIn<C>(C, Stop);

impl<C: Change> Change for KilledIn<C> {
    type Made = C::Made;

    fn prepare(&mut self) -> Result<Undo, Error> {
        self.0.prepare()
    }

    fn apply(&mut self) -> Result<C::Made, Error> {
        if self.1 == Stop::Recorded {
            await_the_end();
        }
        self.0.apply()
    }

    fn verify(&self) -> Result<(), Error> {
        if self.1 == Stop::Made {
            await_the_end();
        }
        self.0.verify()
    }
}

const STOPPED: &str = "stopped here";

/// Says that it is time to be killed, and waits for it.
fn await_the_end() -> ! {
    println!("\n{STOPPED}");
    sleep(Duration::from_secs(60));
    panic!("nobody came");
}

/// Makes changes up to a last one, in which the process waits to be killed.
struct Doomed {
    journal: Journal,
    last: usize,
    stop: Stop,
}

impl Doomed {
    fn step<C: Change>(&mut self, change: C) -> C::Made {
        let is_last = self.journal.len() == self.last;
        if is_last && self.stop != Stop::Done {
            self.journal.apply(KilledIn(change, self.stop)).unwrap();
            unreachable!("killed in it");
        }
        let made = self.journal.apply(change).unwrap();
        if is_last {
            await_the_end();
        }
        made
    }
}

const STEPS: usize = 12;
const NET: &str = "/sys/class/net/a";
const MARTIANS: &str = "/proc/sys/net/ipv4/conf/a/log_martians";

/// The child: twelve settings in the namespace `home`, killed in the one of number `last`.
fn tune_until_killed(directory: &Path, home: &str, name: &str, last: usize, stop: Stop) {
    let mut doomed = Doomed { journal: Journal::open_in(directory).unwrap(), last, stop };
    Namespace::named(home).unwrap().enter().unwrap();
    let a = Interface::named("a").unwrap();
    let namespace = doomed.step(CreateNamespace::new(name));
    doomed.step(CreateLink::new(NewLink::veth(End::new("x"), End::new("y").in_namespace(&namespace))));
    let mut one = Channels::default();
    one.tx = Some(1);
    doomed.step(Tune::new(&a, Knob::Channels(one)));
    doomed.step(Tune::new(&a, Knob::features(ethtool::TX_CHECKSUM, false)));
    doomed.step(Tune::new(&a, Knob::features(ethtool::RX_VLAN, false)));
    doomed.step(WriteFile::new(format!("{NET}/napi_defer_hard_irqs"), "2"));
    doomed.step(WriteFile::new(format!("{NET}/gro_flush_timeout"), "200000"));
    doomed.step(WriteFile::new(format!("{NET}/threaded"), "1"));
    let napis = genl::napis(a.index).unwrap().unwrap();
    let settings = NapiSettings {
        irq_suspend_timeout_ns: Some(20_000_000),
        gro_flush_timeout_ns: Some(100_000),
        ..NapiSettings::default()
    };
    doomed.step(Tune::new(&a, Knob::Napi { id: napis[0].id, settings }));
    let core = *cpu::allowed().unwrap().last().unwrap();
    doomed.step(PinThread::new(napis[0].pid.unwrap(), &[core]));
    doomed.step(WriteFile::new(format!("{NET}/tx_queue_len"), "77"));
    doomed.step(WriteFile::new(MARTIANS, "1"));
    unreachable!("one of the steps was the last");
}

/// Everything that the child changes: files byte for byte, and what netlink says.
fn state(namespace: &Namespace, name: &str) -> BTreeMap<String, Vec<u8>> {
    let files = ["napi_defer_hard_irqs", "gro_flush_timeout", "threaded", "tx_queue_len"];
    let mut state: BTreeMap<_, _> = namespace
        .with_sysfs(|sysfs| {
            let path = |file: &str| sysfs.join("class/net/a").join(file);
            files.map(|file| (file.to_string(), std::fs::read(path(file)).unwrap()))
        })
        .unwrap()
        .into();
    namespace
        .run(|| {
            state.insert("martians".to_string(), std::fs::read(MARTIANS).unwrap());
            let a = Interface::named("a").unwrap();
            let mut add = |what: &str, value: &dyn core::fmt::Debug| {
                state.insert(what.to_string(), format!("{value:?}").into_bytes());
            };
            add("links", &Interface::all().unwrap());
            add("channels", &a.channels().unwrap());
            add("features", &a.features().unwrap());
            add("napis", &genl::napis(a.index).unwrap());
            add("named", &Namespace::names().contains(&name.to_string()));
        })
        .unwrap();
    state
}

#[test]
fn a_process_killed_at_any_of_twelve_settings_leaves_nothing_that_restore_does_not_put_back() {
    const TEST: &str =
        "a_process_killed_at_any_of_twelve_settings_leaves_nothing_that_restore_does_not_put_back";
    const CHILD: &str = "XDP_CORE_TEST_TUNED";
    if let Ok(told) = std::env::var(CHILD) {
        let [directory, home, name, last, stop] = told.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let stop = match stop {
            "Recorded" => Stop::Recorded,
            "Made" => Stop::Made,
            _ => Stop::Done,
        };
        return tune_until_killed(directory.as_ref(), home, name, last.parse().unwrap(), stop);
    }
    if !privileged() {
        return;
    }
    if cpu::kernel_version() < (6, 13) {
        return println!("skipped: settings of one NAPI instance need Linux 6.13");
    }
    let scratch = Scratch::new();
    let (home, name) = (fresh_name("xdp-home-"), fresh_name("xdp-made-"));
    let namespace = Namespace::create_named(&home).unwrap();
    polled_pair_in(&namespace);
    let before = state(&namespace, &name);
    let mut changed = BTreeSet::new();
    for (last, stop) in
        (0..STEPS).flat_map(|last| [Stop::Recorded, Stop::Made, Stop::Done].map(|stop| (last, stop)))
    {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(CHILD, format!("{} {home} {name} {last} {stop:?}", scratch.0.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let stopped = lines.any(|line| line == STOPPED);
        let between = state(&namespace, &name);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(stopped, "the child got to step {last}");
        assert_eq!(between == before, last == 0 && stop == Stop::Recorded, "step {last} {stop:?}");
        changed
            .extend(between.iter().filter(|(key, value)| before[*key] != **value).map(|one| one.0.clone()));

        let [leftover] = Journal::leftovers_in(&scratch.0).unwrap().try_into().unwrap();
        assert_eq!(leftover.steps().count(), last + 1);
        let report = leftover.restore();
        assert!(report.is_complete(), "{report}");
        let after = state(&namespace, &name);
        for (key, value) in &before {
            let [value, after] =
                [value, &after[key]].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            assert_eq!(after, value, "{key} after a kill at step {last} {stop:?}:\n{report}");
        }
        assert_eq!(std::fs::read_dir(&scratch.0).unwrap().count(), 0, "what is undone is not kept");
    }
    assert_eq!(changed.len(), before.len(), "every part of the state was changed on the way: {changed:?}");
}
