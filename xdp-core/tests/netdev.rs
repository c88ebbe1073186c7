//! The host's control plane on veth pairs, in namespaces made for it. Without the privilege each test says that it is
//! skipped. Nothing outside those namespaces is read for a verdict or changed.

use core::net::{IpAddr, Ipv4Addr};
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};
use core::time::Duration;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::Instant;
use xdp_core::cpu::{self, Cap};
use xdp_core::netdev::change::{Change, CreateLink, CreateNamespace, Outcome, Undo, WriteFile};
use xdp_core::netdev::ethtool::{self, Coalescing};
use xdp_core::netdev::genl::{self, QueueKind, XdpFeatures};
use xdp_core::netdev::journal::Journal;
use xdp_core::netdev::route::{self, LockOut};
use xdp_core::netdev::{End, Interface, Mac, Namespace, NewLink, Setting, icmp};
use xdp_umem::Errno;

const A: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 1));
const B: IpAddr = IpAddr::V4(Ipv4Addr::new(198, 18, 0, 2));

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

/// Two namespaces with the ends `a` and `b` of a pair, up, with addresses.
fn pair(queues: u32) -> (Namespace, Namespace) {
    let (left, right) = (Namespace::anonymous().unwrap(), Namespace::anonymous().unwrap());
    let near = End::new("a").in_namespace(&left).mac(Mac::local(1));
    let far = End::new("b").in_namespace(&right).mac(Mac::local(2));
    let [a, b] = NewLink::veth(near, far).queues(queues).mtu(1600).create_pair().unwrap();
    for (namespace, end, ip) in [(&left, a, A), (&right, b, B)] {
        namespace
            .run(|| {
                end.set_ipv6_autoconfigured(false).unwrap();
                end.add_address(ip, 24).unwrap();
                end.set_up(true).unwrap();
            })
            .unwrap();
    }
    for (namespace, name) in [(&left, "a"), (&right, "b")] {
        in_namespace(namespace, |end| end.wait_operational(Duration::from_secs(5)).unwrap(), name);
    }
    (left, right)
}

fn in_namespace<T: Send>(namespace: &Namespace, job: impl FnOnce(Interface) -> T + Send, name: &str) -> T {
    namespace.run(|| job(Interface::named(name).unwrap())).unwrap()
}

#[test]
fn a_named_namespace_comes_and_goes_with_its_value() {
    if !privileged() {
        return;
    }
    let name = fresh_name("xdp-ns-");
    let namespace = Namespace::create_named(&name).unwrap();
    assert!(Namespace::names().contains(&name));
    assert_eq!(Namespace::named(&name).unwrap().inode(), namespace.inode());
    assert_ne!(namespace.inode(), Namespace::current().unwrap().inode());
    assert_eq!(Namespace::create_named(&name).unwrap_err().errno(), Errno::EEXIST);
    assert_eq!(
        Namespace::named(&name).unwrap().inode(),
        namespace.inode(),
        "the failed one took nothing away"
    );
    let lo = namespace.run(Interface::all).unwrap().unwrap();
    assert_eq!(lo.iter().map(|one| (&*one.name, one.up)).collect::<Vec<_>>(), [("lo", true)]);
    drop(namespace);
    assert!(!Namespace::names().contains(&name));
    assert_eq!(Namespace::named(&name).unwrap_err().errno(), Errno::ENOENT);
}

#[test]
fn a_job_borrows_returns_and_panics_through_the_thread() {
    if !privileged() {
        return;
    }
    let here = Namespace::current().unwrap().inode();
    let namespace = Namespace::anonymous().unwrap();
    let mut seen = 0;
    let returned = namespace.run(|| {
        seen = Namespace::current().unwrap().inode();
        "done"
    });
    assert_eq!((returned.unwrap(), seen), ("done", namespace.inode()));
    assert_eq!(Namespace::current().unwrap().inode(), here, "the caller stays where it is");
    let caught = std::panic::catch_unwind(|| namespace.run(|| panic!("{}", "inside")));
    assert_eq!(caught.unwrap_err().downcast_ref::<String>().unwrap(), "inside");
    let inode = namespace.inode();
    assert_eq!(
        Namespace::with_inode(inode).map(|found| found.inode()),
        Some(inode),
        "our descriptor leads to it"
    );
    drop(namespace);
    assert!(Namespace::with_inode(inode).is_none(), "nothing leads to it");
}

#[test]
fn a_veth_pair_is_what_was_asked_for() {
    if !privileged() {
        return;
    }
    let (left, right) = pair(4);
    let a = in_namespace(&left, |a| a, "a");
    let b = in_namespace(&right, |b| b, "b");
    assert_eq!(
        (a.kind.as_deref(), a.mac, a.mtu, a.up, a.carrier),
        (Some("veth"), Some(Mac::local(1)), 1600, true, true)
    );
    assert_eq!((b.mac, b.up, b.carrier), (Some(Mac::local(2)), true, true));
    assert_eq!((a.peer(), a.lower_elsewhere, b.peer()), (Some(b.index), true, Some(a.index)));
    assert_eq!((a.rx_queues_allocated, b.tx_queues_allocated, a.xdp.any()), (4, 4, false));
    let queues = in_namespace(&left, |a| a.queues().unwrap(), "a");
    assert_eq!((queues.rx, queues.tx), (4, 4));
    let addresses = in_namespace(&left, |a| a.addresses().unwrap(), "a");
    assert_eq!(addresses, [(A, 24)], "and no IPv6 address of its own");
    let driver = in_namespace(&left, |a| a.driver().unwrap().value().unwrap(), "a");
    assert_eq!(driver.name, "veth");
    assert_eq!(in_namespace(&left, |a| cpu::numa_node_of(&a).unwrap(), "a"), None);
}

#[test]
fn settings_take_and_read_back() {
    if !privileged() {
        return;
    }
    let (left, right) = pair(1);
    in_namespace(
        &left,
        |a| {
            a.set_mtu(9000).unwrap();
            a.set_mac(Mac::local(77)).unwrap();
            a.add_address("fd00::1".parse().unwrap(), 64).unwrap();
            a.add_neighbour(B, Mac::local(2)).unwrap();
            let now = a.refresh().unwrap();
            assert_eq!((now.mtu, now.mac), (9000, Some(Mac::local(77))));
            assert!(a.addresses().unwrap().contains(&("fd00::1".parse().unwrap(), 64)));
            assert_eq!(a.add_address(A, 24).unwrap_err().errno(), Errno::EEXIST);
            let error = a.set_mtu(1).unwrap_err();
            assert_eq!(error.errno(), Errno::EINVAL);
            assert!(error.to_string().contains("mtu"), "the kernel's own words: {error}");
            a.set_up(false).unwrap();
            a.rename("new").unwrap();
            assert_eq!(a.refresh().unwrap().name, "new");
            assert_eq!(a.rename("lo").unwrap_err().errno(), Errno::EEXIST);
            assert_eq!(a.rename("no/good").unwrap_err().errno(), Errno::EINVAL);
            assert!(!a.refresh().unwrap().up);
            a.move_to(&right).unwrap();
            assert_eq!(a.refresh().unwrap_err().errno(), Errno::ENODEV);
        },
        "a",
    );
    let error =
        in_namespace(&right, |alone| alone.wait_operational(Duration::from_millis(5)).unwrap_err(), "b");
    assert_eq!(error.errno(), Errno::ETIMEDOUT, "its peer is down");
    in_namespace(&right, |moved| moved.delete().unwrap(), "new");
    assert_eq!(
        right.run(|| Interface::named("b").unwrap_err().errno()).unwrap(),
        Errno::ENODEV,
        "it went with its peer"
    );
}

#[test]
fn an_interface_refuses_to_act_from_another_namespace() {
    if !privileged() {
        return;
    }
    let (left, right) = pair(1);
    let a = in_namespace(&left, |a| a, "a");
    // from the other end's namespace, never from the host's: were the refusal broken, it would hit what has that index
    right
        .run(|| {
            let tried =
                [a.set_up(false), a.delete(), a.refresh().map(drop), a.set_mtu(1400), a.channels().map(drop)];
            for refused in tried {
                assert_eq!(refused.unwrap_err().errno(), Errno::EXDEV);
            }
        })
        .unwrap();
    assert!(in_namespace(&left, |a| a.up, "a"));
}

#[test]
fn a_kind_the_kernel_lacks_and_a_name_that_is_taken_are_said_so() {
    if !privileged() {
        return;
    }
    let (left, _right) = pair(1);
    left.run(|| {
        let taken = NewLink::veth(End::new("a"), End::new("z")).create().unwrap_err();
        assert_eq!(taken.errno(), Errno::EEXIST);
        let ends = NewLink::veth(End::new("y"), End::new("not a name"));
        assert_eq!(ends.create().unwrap_err().errno(), Errno::EINVAL);
        for (kind, link) in [("dummy", NewLink::dummy(End::new("d0"))), ("ifb", NewLink::ifb(End::new("i0")))]
        {
            match link.create() {
                Ok(made) => assert_eq!(made[0].kind.as_deref(), Some(kind)),
                Err(error) => {
                    assert_eq!(error.errno(), Errno::EOPNOTSUPP);
                    println!("skipped: {error}");
                }
            }
        }
    })
    .unwrap();
}

#[test]
fn every_ping_over_the_pair_comes_back() {
    if !privileged() {
        return;
    }
    let (left, right) = pair(1);
    let ping = |to: Ipv4Addr, count, timeout_ms| {
        left.run(|| icmp::ping(to, count, Duration::from_millis(1), Duration::from_millis(timeout_ms)))
            .unwrap()
    };
    let started = Instant::now();
    let round_trips = ping(Ipv4Addr::new(198, 18, 0, 2), 50, 1000).unwrap();
    assert_eq!(round_trips.len(), 50);
    let longest = started.elapsed().as_nanos() as u64;
    assert!(round_trips.iter().all(|one| one.is_some_and(|ns| ns > 0 && ns < longest)), "{round_trips:?}");
    assert!(started.elapsed() >= Duration::from_millis(49), "an interval apart");
    // a neighbour that is not there
    in_namespace(&left, |a| a.add_neighbour("198.18.0.9".parse().unwrap(), Mac::local(9)).unwrap(), "a");
    assert_eq!(ping(Ipv4Addr::new(198, 18, 0, 9), 2, 20).unwrap(), [None, None]);
    assert_eq!(ping(Ipv4Addr::new(198, 51, 100, 1), 1, 20).unwrap_err().errno(), Errno::ENETUNREACH);
    drop(right);
}

#[test]
fn the_interface_the_host_hangs_on_is_known() {
    if !privileged() {
        return;
    }
    let (left, _right) = pair(1);
    in_namespace(
        &left,
        |a| {
            assert_eq!(route::lock_out(&a).unwrap(), None);
            let through = |connection: &str| route::carries_connection(a.index, connection).unwrap();
            assert_eq!(through("203.0.113.5 5000 198.18.0.1 22"), Some(A), "to an address of ours");
            assert_eq!(
                through("198.18.0.2 5000 10.0.0.1 22"),
                Some(B),
                "from a peer that is reached through it"
            );
            assert_eq!(through("203.0.113.5 5000 10.0.0.1 22"), None);
            assert_eq!(route::outgoing_interface(B).unwrap(), Some(a.index));
            a.add_route("0.0.0.0".parse().unwrap(), 0, Some(B)).unwrap();
            assert_eq!(route::lock_out(&a).unwrap(), Some(LockOut::DefaultRoute));
            assert!(!route::carries_default_route(1).unwrap(), "not lo");
            assert_eq!(through("203.0.113.5 5000 10.0.0.1 22"), Some("203.0.113.5".parse().unwrap()));
        },
        "a",
    );
    let (left, _right) = pair(1);
    in_namespace(
        &left,
        |a| {
            a.add_route("128.0.0.0".parse().unwrap(), 1, None).unwrap();
            assert!(route::carries_default_route(a.index).unwrap(), "half of everything, as a VPN routes it");
        },
        "a",
    );
}

#[test]
fn queues_and_xdp_features_of_a_veth_are_told_by_the_kernel() {
    if !privileged() {
        return;
    }
    let (left, _right) = pair(2);
    in_namespace(
        &left,
        |a| {
            let Some(found) = genl::xdp_features(a.index).unwrap() else {
                println!("skipped: no netlink family netdev before Linux 6.3");
                return;
            };
            assert!(found.has(XdpFeatures::BASIC | XdpFeatures::REDIRECT | XdpFeatures::RX_FRAGMENTS));
            assert!(!found.has(XdpFeatures::ZERO_COPY), "veth has no zero-copy");
            assert_eq!(genl::xdp_features(9999).unwrap_err().errno(), Errno::ENODEV);
            if let Some(queues) = genl::queues(a.index).unwrap() {
                let ids = |kind| queues.iter().filter(move |queue| queue.kind == kind).map(|queue| queue.id);
                assert!(ids(QueueKind::Rx).eq([0, 1]) && ids(QueueKind::Tx).eq([0, 1]), "{queues:?}");
                assert!(queues.iter().all(|queue| !queue.xsk_bound));
            }
            assert_eq!(
                genl::napis(a.index).unwrap().unwrap_or_default(),
                [],
                "no NAPI before a program or GRO"
            );
        },
        "a",
    );
}

#[test]
fn what_veth_lacks_is_a_value_and_what_it_has_is_set() {
    if !privileged() {
        return;
    }
    let (left, _right) = pair(2);
    in_namespace(
        &left,
        |a| {
            let Setting::Unsupported(reason) = a.coalescing().unwrap() else {
                panic!("veth has no coalescing")
            };
            assert_eq!(reason, "coalescing not supported by a");
            let mut wanted = Coalescing::default();
            wanted.rx_usecs = Some(10);
            assert!(matches!(a.set_coalescing(&wanted).unwrap(), Setting::Unsupported(_)));
            let mut channels = a.channels().unwrap().value().unwrap();
            assert_eq!((channels.rx, channels.tx, channels.rx_max), (Some(2), Some(2), Some(2)));
            (channels.rx, channels.tx) = (Some(1), Some(1));
            assert_eq!(a.set_channels(&channels).unwrap(), Setting::Value(()));
            let queues = a.queues().unwrap();
            assert_eq!((queues.rx, queues.tx, a.refresh().unwrap().rx_queues_allocated), (1, 1, 2));
            channels.rx = Some(64);
            assert_eq!(a.set_channels(&channels).unwrap_err().errno(), Errno::EINVAL);
            println!("ring sizes of a veth: {:?}", a.rings().unwrap());
            for group in [ethtool::TSO, ethtool::GRO, ethtool::TX_CHECKSUM] {
                for on in [false, true, false] {
                    assert_eq!(a.set_features(group, on).unwrap(), Setting::Value(()), "{group:?} {on}");
                    assert_eq!(a.features().unwrap().value().unwrap().any_on(group), on, "{group:?}");
                }
            }
            let error = a.set_features(ethtool::TSO, true).unwrap_err();
            assert_eq!(error.errno(), Errno::ERANGE, "the kernel drops it without checksums: {error}");
            assert!(matches!(a.set_features(ethtool::LRO, true).unwrap(), Setting::Unsupported(_)));
            assert_eq!(a.set_features(ethtool::LRO, false).unwrap(), Setting::Value(()), "off already");
        },
        "a",
    );
}

#[test]
fn the_sysfs_shown_is_that_of_the_namespace() {
    if !privileged() {
        return;
    }
    let (left, _right) = pair(1);
    let names = |namespace: &Namespace| {
        let mut names: Vec<_> = namespace
            .with_sysfs(|sysfs| {
                let entries = std::fs::read_dir(sysfs.join("class/net")).unwrap();
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
            })
            .unwrap();
        names.sort();
        names
    };
    let mounts = || {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        mounts.lines().filter(|line| line.starts_with("sysfs ")).count()
    };
    let before = mounts();
    assert_eq!(names(&left), ["a", "lo"]);
    let here = Namespace::current().unwrap();
    let listed: Vec<_> = Interface::all().unwrap().into_iter().map(|one| one.name).collect();
    assert!(names(&here).iter().any(|name| listed.contains(name)), "where /sys is of this namespace already");
    let lo = Interface::named("lo").unwrap();
    assert_eq!(lo.queues().unwrap().rx, lo.rx_queues_allocated);
    assert_eq!(cpu::numa_node_of(&lo).unwrap(), None);
    assert_eq!(mounts(), before, "no mount is left behind");
}

#[test]
fn nothing_is_left_behind_after_a_panic() {
    if !privileged() {
        return;
    }
    let name = fresh_name("xdp-ns-");
    let outside = Namespace::anonymous().unwrap();
    let caught = std::panic::catch_unwind(|| {
        let namespace = Namespace::create_named(&name).unwrap();
        let (near, far) = (End::new("a").in_namespace(&outside), End::new("b").in_namespace(&namespace));
        NewLink::veth(near, far).create_pair().unwrap();
        panic!("in the middle");
    });
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"in the middle"));
    assert!(!Namespace::names().contains(&name));
    // the kernel takes a namespace and what is in it apart a little later
    let started = Instant::now();
    while outside.run(|| Interface::named("a").is_ok()).unwrap() {
        assert!(started.elapsed() < Duration::from_secs(10), "the end outside goes with the one inside");
        sleep(Duration::from_millis(5));
    }
}

/// A directory for journals, gone at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        let path = std::env::temp_dir().join(fresh_name("xdp-netdev-"));
        std::fs::DirBuilder::new().mode(0o700).create(&path).unwrap();
        Self(path)
    }

    fn journals(&self) -> Vec<PathBuf> {
        std::fs::read_dir(&self.0).unwrap().map(|entry| entry.unwrap().path()).collect()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

const MARTIANS: &str = "/proc/sys/net/ipv4/conf/a/log_martians";
const QUEUE_LEN: &str = "/sys/class/net/a/tx_queue_len";

/// What the changes of the journal's tests change, byte for byte: the links of `namespace`, two files, and whether a
/// name is there.
fn state(namespace: &Namespace, name: &str) -> (Vec<String>, Vec<u8>, Vec<u8>, bool) {
    let links = || Interface::all().unwrap().into_iter().map(|link| format!("{link:?}")).collect();
    let (links, martians) = namespace.run(|| (links(), std::fs::read(MARTIANS).unwrap())).unwrap();
    let queue_len = namespace.with_sysfs(|_| std::fs::read(QUEUE_LEN).unwrap()).unwrap();
    (links, martians, queue_len, Namespace::names().contains(&name.to_string()))
}

/// A change during which the process is killed.
struct KilledIn<C>(C);

impl<C: Change> Change for KilledIn<C> {
    type Made = C::Made;

    fn prepare(&mut self) -> Result<Undo, xdp_core::netdev::Error> {
        self.0.prepare()
    }

    fn apply(&mut self) -> Result<C::Made, xdp_core::netdev::Error> {
        await_the_end()
    }

    fn verify(&self) -> Result<(), xdp_core::netdev::Error> {
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

/// The child's half of the next test: makes changes in the namespace `home`, the last of them interrupted or done.
fn change_until_killed(directory: &Path, home: &str, name: &str, last: usize, interrupted: bool) {
    let mut journal = Journal::open_in(directory).unwrap();
    Namespace::named(home).unwrap().enter().unwrap();
    fn step<C: Change>(journal: &mut Journal, change: C, last: usize, interrupted: bool) -> C::Made {
        let stop = journal.len() == last;
        if stop && interrupted {
            return journal.apply(KilledIn(change)).unwrap();
        }
        let made = journal.apply(change).unwrap();
        if stop {
            await_the_end();
        }
        made
    }
    let namespace = step(&mut journal, CreateNamespace::new(name), last, interrupted);
    let link = NewLink::veth(End::new("x"), End::new("y").in_namespace(&namespace));
    step(&mut journal, CreateLink::new(link), last, interrupted);
    step(&mut journal, WriteFile::new(MARTIANS, "1"), last, interrupted);
    step(&mut journal, WriteFile::new(QUEUE_LEN, "77"), last, interrupted);
    unreachable!("one of the steps was the last");
}

#[test]
fn whatever_step_a_process_is_killed_in_restore_puts_back_what_was() {
    const TEST: &str = "whatever_step_a_process_is_killed_in_restore_puts_back_what_was";
    const CHILD: &str = "XDP_CORE_TEST_KILLED";
    if let Ok(told) = std::env::var(CHILD) {
        let [directory, home, name, last, interrupted] =
            told.split(' ').collect::<Vec<_>>().try_into().unwrap();
        return change_until_killed(
            directory.as_ref(),
            home,
            name,
            last.parse().unwrap(),
            interrupted == "true",
        );
    }
    if !privileged() {
        return;
    }
    let scratch = Scratch::new();
    let (home, name) = (fresh_name("xdp-home-"), fresh_name("xdp-made-"));
    let namespace = Namespace::create_named(&home).unwrap();
    namespace.run(|| NewLink::veth(End::new("a"), End::new("b")).create_pair().unwrap()).unwrap();
    let before = state(&namespace, &name);
    for (last, interrupted) in (0..4).flat_map(|last| [(last, true), (last, false)]) {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", TEST, "--nocapture"])
            .env(CHILD, format!("{} {home} {name} {last} {interrupted}", scratch.0.display()))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let stopped = lines.any(|line| line == STOPPED);
        let alive = Journal::leftovers_in(&scratch.0).unwrap().len();
        let between = state(&namespace, &name);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(stopped, "the child got to step {last}");
        assert_eq!(alive, 0, "a journal whose process lives is no leftover");
        assert_eq!(between == before, last == 0 && interrupted, "step {last} has changed something");

        // a second journal of the same steps: all of them undone already when its turn comes
        let [path] = scratch.journals().try_into().unwrap();
        let again = scratch.0.join(format!("{}-9.journal", 1 << 23));
        std::fs::copy(&path, &again).unwrap();
        let mut leftovers = Journal::leftovers_in(&scratch.0).unwrap();
        assert_eq!(leftovers.len(), 2);
        let at = leftovers.iter().position(|one| one.pid() == child.id()).unwrap();
        let first = leftovers.remove(at);
        assert_eq!(first.steps().count(), last + 1);
        let report = first.restore();
        assert!(report.is_complete(), "{report}");
        assert_eq!(state(&namespace, &name), before, "after step {last}:\n{report}");
        let report = leftovers.remove(0).restore();
        let nothing_done = report.lines.iter().all(|(_, outcome)| outcome == &Ok(Outcome::AlreadyGone));
        assert!(nothing_done && report.lines.len() == last + 1, "{report}");
        assert!(scratch.journals().is_empty(), "what is undone is not kept");
    }
}

#[test]
fn a_panic_undoes_what_the_journal_did() {
    if !privileged() {
        return;
    }
    let scratch = Scratch::new();
    let name = fresh_name("xdp-made-");
    let namespace = Namespace::anonymous().unwrap();
    namespace.run(|| NewLink::veth(End::new("a"), End::new("b")).create_pair().unwrap()).unwrap();
    let before = state(&namespace, &name);
    let caught = std::panic::catch_unwind(|| {
        let mut journal = Journal::open_in(&scratch.0).unwrap();
        journal.apply(CreateNamespace::new(name.clone())).unwrap();
        namespace.run(|| journal.apply(WriteFile::new(MARTIANS, "1")).unwrap()).unwrap();
        assert_ne!(state(&namespace, &name), before);
        panic!("in the middle");
    });
    assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"in the middle"));
    assert_eq!(state(&namespace, &name), before);
    assert!(scratch.journals().is_empty());
}

#[test]
fn a_change_that_fails_leaves_neither_a_trace_nor_a_step() {
    if !privileged() {
        return;
    }
    let scratch = Scratch::new();
    let (home, name) = (fresh_name("xdp-home-"), fresh_name("xdp-made-"));
    let namespace = Namespace::create_named(&home).unwrap();
    let mut journal = Journal::open_in(&scratch.0).unwrap();
    let taken = Namespace::create_named(&name).unwrap();
    assert_eq!(journal.apply(CreateNamespace::new(name.clone())).unwrap_err().errno(), Errno::EEXIST);
    assert_eq!(
        Namespace::named(&name).unwrap().inode(),
        taken.inode(),
        "the one that was there is still there"
    );
    namespace
        .run(|| {
            NewLink::veth(End::new("a"), End::new("b")).create_pair().unwrap();
            let again = NewLink::veth(End::new("a"), End::new("c"));
            assert_eq!(journal.apply(CreateLink::new(again)).unwrap_err().errno(), Errno::EEXIST);
            assert!(Interface::named("a").is_ok() && Interface::named("c").is_err());
            let out_of_range = WriteFile::new(QUEUE_LEN, "many");
            assert_eq!(journal.apply(out_of_range).unwrap_err().errno(), Errno::EINVAL);
            let missing = WriteFile::new("/sys/class/net/a/no_such", "1");
            assert!(journal.apply(missing).unwrap_err().is_absent());
            assert_eq!(journal.len(), 0);

            // a link of the same name that others made after ours went
            journal.apply(CreateLink::new(NewLink::veth(End::new("x"), End::new("y")))).unwrap();
            Interface::named("x").unwrap().delete().unwrap();
            NewLink::veth(End::new("x"), End::new("y")).create_pair().unwrap();
            let report = journal.restore();
            assert_eq!(report.lines[0].1, Ok(Outcome::AlreadyGone), "{report}");
            assert!(Interface::named("x").is_ok(), "it is not ours to delete");
        })
        .unwrap();
    assert!(journal.is_empty());
}
