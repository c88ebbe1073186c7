//! Real zero-copy, in the virtual machine: this file runs twice. On the host it boots the machine and has the machine run
//! this very binary; there the tests of [`inside`] do their work, which on the host they skip.
//!
//! Without a fetched QEMU and kernel it says so and passes. With `VM_REQUIRED=1` it fetches what is missing, and fails
//! where it cannot. `VM_FULL=1` adds the machines that take longer.
#![cfg(feature = "cli")]

use core::time::Duration;
use std::env;
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use xdp_apps::testbed::vm::{Nic, Outcome, Vm};
use xdp_apps::testbed::{Error, VARIABLE};

/// One machine at a time: each takes what processors there are.
static ONE_MACHINE: Mutex<()> = Mutex::new(());

fn is_set(variable: &str) -> bool {
    env::var_os(variable).is_some_and(|value| !value.is_empty() && value != "0")
}

/// The machine, ready to boot, or why the test is skipped.
fn machine(vm: Vm) -> Option<(Vm, MutexGuard<'static, ()>)> {
    if is_set(VARIABLE) {
        println!("skipped: no machine inside the machine");
        return None;
    }
    let guard = ONE_MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let vm = vm.init(env!("CARGO_BIN_EXE_xdp-apps")).timeout(Duration::from_secs(170));
    let found = match is_set("VM_REQUIRED") {
        true => vm.fetch(&mut |news| println!("{news}")),
        false => vm.parts(),
    };
    match found {
        Ok(_) => Some((vm, guard)),
        Err(error) if is_set("VM_REQUIRED") => panic!("VM_REQUIRED is set, and {error}"),
        Err(error) => {
            println!("skipped: {error}");
            None
        }
    }
}

fn full() -> bool {
    let full = is_set("VM_FULL");
    if !full {
        println!("skipped: takes longer, and VM_FULL is not set");
    }
    full
}

/// Runs the tests of [`inside`] whose names have this in them.
fn run_inside(vm: &Vm, names: &str) -> Outcome {
    let this = env::current_exe().expect("a test is a file");
    let this = this.to_str().expect("a path in UTF-8");
    let outcome =
        vm.run(&[this, names, "--test-threads=1", "--nocapture"]).unwrap_or_else(|error| panic!("{error}"));
    println!("{}{}\n{outcome}", outcome.stdout, outcome.stderr);
    outcome
}

/// Passed, with so many tests that really ran.
fn assert_passed(outcome: &Outcome, tests: usize) {
    assert!(outcome.passed(), "{outcome}");
    assert!(!outcome.stdout.contains("skipped:"), "nothing is skipped inside");
    let summary = format!("test result: ok. {tests} passed; 0 failed; 0 ignored");
    assert!(outcome.stdout.contains(&summary), "expected {summary}");
}

#[test]
fn virtio_moves_packets_in_every_mode_and_its_hazards_are_met() {
    let Some((vm, _guard)) = machine(Vm::new()) else { return };
    assert_passed(&run_inside(&vm, "inside::virtio_"), 8);
}

#[test]
fn igb_moves_packets_without_a_copy_and_its_hazards_are_met() {
    let Some((vm, _guard)) = machine(Vm::new().nic(Nic::Igb)) else { return };
    assert_passed(&run_inside(&vm, "inside::igb_"), 5);
}

#[test]
fn igb_of_6_18_receives_although_its_driver_wakes_the_wrong_side() {
    if !full() {
        return;
    }
    let Some((vm, _guard)) = machine(Vm::new().nic(Nic::Igb).kernel("6.18")) else { return };
    assert_passed(&run_inside(&vm, "inside::igb_"), 5);
}

#[test]
fn igb_with_two_queues_binds_both_and_no_third() {
    if !full() {
        return;
    }
    let Some((vm, _guard)) = machine(Vm::new().nic(Nic::Igb).queues(2)) else { return };
    assert_passed(&run_inside(&vm, "inside::two_queues_"), 1);
}

#[test]
fn a_kernel_without_zero_copy_copies_and_says_so() {
    if !full() {
        return;
    }
    let Some((vm, _guard)) = machine(Vm::new().kernel("6.12")) else { return };
    assert_passed(&run_inside(&vm, "inside::no_zero_copy_"), 1);
}

#[test]
fn cards_without_zero_copy_copy() {
    if !full() {
        return;
    }
    for (nic, names) in [(Nic::Vmxnet3, "inside::no_zero_copy_"), (Nic::E1000e, "inside::no_native_")] {
        let Some((vm, _guard)) = machine(Vm::new().nic(nic)) else { return };
        assert_passed(&run_inside(&vm, names), 1);
    }
}

/// The core's own suites, as the machine's kernel sees them: built here, run there.
#[test]
fn the_core_s_own_suites_pass_in_the_machine() {
    if !full() {
        return;
    }
    let Some((vm, _guard)) = machine(Vm::new()) else { return };
    for program in
        built(&["test", "-p", "xdp-core", "--no-run", "--lib", "--test", "netdev", "--test", "netns"])
    {
        let outcome =
            vm.run(&[program.as_str(), "--test-threads=2"]).unwrap_or_else(|error| panic!("{error}"));
        println!("{program}\n{}{}\n{outcome}", outcome.stdout, outcome.stderr);
        assert!(outcome.passed(), "{outcome}");
        assert!(outcome.stdout.contains("test result: ok. "));
    }
}

/// Settings that no veth has, on a card that has them: VLAN offload, coalescing, driver rings, RSS, queues, interrupt affinity.
#[test]
fn a_real_card_s_settings_take_and_are_put_back() {
    let Some((vm, _guard)) = machine(Vm::new().nic(Nic::Igb).queues(2)) else { return };
    for program in built(&["test", "-p", "xdp-core", "--no-run", "--test", "host"]) {
        let words = [program.as_str(), "--exact", "a_real_card_is_tuned_and_put_back", "--nocapture"];
        let outcome = vm.run(&words).unwrap_or_else(|error| panic!("{error}"));
        println!("{}{}\n{outcome}", outcome.stdout, outcome.stderr);
        assert!(outcome.passed(), "{outcome}");
        assert!(outcome.stdout.contains("test result: ok. 1 passed"));
        assert!(outcome.stdout.contains("in force: coalescing"), "it was skipped");
    }
}

/// The programs that cargo builds with these words.
fn built(words: &[&str]) -> Vec<String> {
    let output =
        Command::new(env!("CARGO")).args(words).arg("--message-format=json").output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8_lossy(&output.stdout).into_owned();
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
    let programs: Vec<_> =
        messages.filter_map(|message| Some(message.get("executable")?.as_str()?.to_string())).collect();
    assert!(!programs.is_empty(), "cargo built nothing");
    programs
}

#[test]
fn a_failing_command_a_kernel_warning_and_a_hang_are_told_apart() {
    let Some((vm, _guard)) = machine(Vm::new()) else { return };
    let outcome = run_inside(&vm.clone().variable("FAULT", "warn").collect("/tmp/left"), "inside::fault_");
    assert_eq!(outcome.status, 0);
    assert_eq!(outcome.warnings, ["WARNING: said by a test"]);
    assert!(!outcome.passed(), "the kernel warned");
    assert_eq!(outcome.files.get("/tmp/left").map(Vec::as_slice), Some(&b"behind\n"[..]));

    let outcome = run_inside(&vm.clone().variable("FAULT", "fail"), "inside::fault_");
    assert_eq!(outcome.status, 101, "as a failed test ends");
    assert!(outcome.warnings.is_empty());

    let hanging = vm.variable("FAULT", "hang").timeout(Duration::from_secs(20));
    let this = env::current_exe().expect("a test is a file");
    let error = hanging.run(&[this.to_str().expect("a path in UTF-8"), "inside::fault_"]).unwrap_err();
    assert!(matches!(error, Error::TimedOut { after_s: 20, .. }), "{error}");
}

/// What happens in the machine.
mod inside {
    use super::*;
    use std::fs;
    use xdp_apps::testbed::ping::{Ping, Report};
    use xdp_apps::testbed::{FAR, NEAR};
    use xdp_core::netdev::ethtool::{Channels, Coalescing};
    use xdp_core::netdev::{Interface, Namespace};
    use xdp_core::{
        BusyPoll, Errno, Idle, Layout, Mode, RegionOptions, Registration, Umem, XskConfig, ZeroCopy,
    };

    /// Whether this is the machine.
    fn here() -> bool {
        let here = is_set(VARIABLE);
        if !here {
            println!("skipped: it wants the virtual machine, and runs there by another test of this file");
        }
        here
    }

    /// In zero-copy or not at all.
    fn zero_copy() -> Ping {
        let config = XskConfig { zero_copy: ZeroCopy::Require, ..XskConfig::default() };
        Ping { config, count: 30, ..Ping::default() }
    }

    fn copy() -> Ping {
        with(&zero_copy(), |config| config.zero_copy = ZeroCopy::Off)
    }

    fn with(ping: &Ping, change: impl FnOnce(&mut XskConfig)) -> Ping {
        let mut ping = ping.clone();
        change(&mut ping.config);
        ping
    }

    /// All probes came back as sent, no frame is lost, and zero-copy is what was expected.
    fn assert_answered(ping: &Ping, is_zero_copy: bool) -> Report {
        let report = ping.run().unwrap_or_else(|error| panic!("{error}"));
        assert!(report.is_complete(), "{ping:?}\n{report}");
        for end in &report.ends {
            assert_eq!(end.granted.zero_copy, is_zero_copy, "{report}");
            assert!(end.conserved, "{report}");
        }
        report
    }

    /// What binding a queue of `near` answers: whether it is zero-copy.
    fn bound(
        queue: u32,
        chunk_size: u32,
        mode: Mode,
        config: &XskConfig,
    ) -> Result<bool, (Option<Errno>, String)> {
        let umem = Umem::new(Layout::new(chunk_size, 4096).unwrap(), &RegionOptions::default()).unwrap();
        let mut registration = Registration::new(&umem).mode(mode);
        let bound = registration.bind(NEAR, queue, config);
        bound.map(|port| port.far.xsk().is_zero_copy()).map_err(|error| (error.errno(), error.to_string()))
    }

    #[test]
    fn virtio_zero_copy_with_and_without_wakeup_flags() {
        if here() {
            assert_answered(&zero_copy(), true);
            assert_answered(&with(&zero_copy(), |config| config.need_wakeup = false), true);
        }
    }

    #[test]
    fn virtio_zero_copy_with_every_kind_of_idling() {
        if here() {
            for idle in [Idle::Pause, Idle::Poll, Idle::Adaptive] {
                assert_answered(&Ping { idle, ..zero_copy() }, true);
            }
        }
    }

    #[test]
    fn virtio_zero_copy_with_long_packets_and_small_chunks() {
        if here() {
            assert_answered(&Ping { packet_size: 1514, ..zero_copy() }, true);
            assert_answered(&Ping { packet_size: 1514, chunk_size: 2048, ..zero_copy() }, true);
        }
    }

    #[test]
    fn virtio_copies_in_native_and_in_skb_mode() {
        if here() {
            assert_answered(&copy(), false);
            assert_answered(&Ping { mode: Mode::Skb, ..copy() }, false);
            assert_answered(&Ping { idle: Idle::Poll, ..copy() }, false);
        }
    }

    #[test]
    fn virtio_zero_copy_is_not_asked_for_in_skb_mode() {
        if here() {
            let preferred = with(&zero_copy(), |config| config.zero_copy = ZeroCopy::Prefer);
            assert_answered(&Ping { mode: Mode::Skb, ..preferred }, false);
            let refused = bound(0, 4096, Mode::Skb, &zero_copy().config).unwrap_err();
            assert_eq!(refused.0, Some(Errno::EOPNOTSUPP));
            assert!(refused.1.ends_with("take --mode native, or --copy"), "{}", refused.1);
        }
    }

    #[test]
    fn virtio_busy_polling_answers_also_where_preferring_it_stalls() {
        if here() {
            let polled = |prefer| BusyPoll { budget: 64, time_us: 20, prefer };
            let report =
                assert_answered(&with(&zero_copy(), |config| config.busy_poll = Some(polled(false))), true);
            assert!(report.ends.iter().all(|end| end.granted.busy_poll.is_ok()), "{report}");
            for need_wakeup in [true, false] {
                let preferring = with(&zero_copy(), |config| {
                    (config.busy_poll, config.need_wakeup) = (Some(polled(true)), need_wakeup);
                });
                let report = assert_answered(&preferring, true);
                let preferring = report.ends.iter().filter(|end| end.granted.prefers_busy_poll).count();
                assert_eq!(preferring, 0, "sending stalls under it, and that was noticed");
            }
        }
    }

    /// With a program attached it may have more transmit queues in use than receive queues.
    #[test]
    fn virtio_refuses_a_queue_that_is_no_pair() {
        if here() {
            let umem = Umem::new(Layout::new(4096, 4096).unwrap(), &RegionOptions::default()).unwrap();
            let mut registration = Registration::new(&umem);
            let port = registration.bind(NEAR, 0, &zero_copy().config).unwrap();
            let error = registration.bind(NEAR, 1, &zero_copy().config).unwrap_err();
            assert_eq!(error.errno(), Some(Errno::EINVAL), "{error}");
            drop(port);
        }
    }

    /// The kernel crashes where a program goes before its socket; any warning of its fails the run.
    #[test]
    fn virtio_sockets_come_and_go_without_a_warning() {
        if here() {
            for _ in 0..5 {
                assert_answered(&Ping { count: 3, ..zero_copy() }, true);
                assert_eq!(bound(0, 4096, Mode::Native, &zero_copy().config), Ok(true));
            }
        }
    }

    #[test]
    fn igb_zero_copy_with_long_packets() {
        if here() {
            assert_answered(&Ping { packet_size: 1514, ..zero_copy() }, true);
        }
    }

    #[test]
    fn igb_busy_polling_answers_also_where_preferring_it_stalls() {
        if here() {
            let busy_poll = Some(BusyPoll { budget: 64, time_us: 20, prefer: true });
            assert_answered(&with(&zero_copy(), |config| config.busy_poll = busy_poll), true);
        }
    }

    #[test]
    fn igb_small_chunks_are_refused_or_copied_into() {
        if here() {
            let refused = bound(0, 2048, Mode::Native, &zero_copy().config).unwrap_err();
            assert_eq!(refused.0, Some(Errno::EMSGSIZE));
            assert!(refused.1.contains("take --chunk-size 4096"), "{}", refused.1);
            let refused = bound(0, 4096, Mode::Skb, &zero_copy().config).unwrap_err();
            assert_eq!(refused.0, Some(Errno::EOPNOTSUPP));
            let preferred = with(&zero_copy(), |config| config.zero_copy = ZeroCopy::Prefer);
            assert_answered(&Ping { packet_size: 1514, chunk_size: 2048, ..preferred }, false);
        }
    }

    /// It would grant it, and refuse every wake-up.
    #[test]
    fn igb_zero_copy_is_not_asked_for_without_a_program() {
        if here() {
            let umem = Umem::new(Layout::new(4096, 4096).unwrap(), &RegionOptions::default()).unwrap();
            let mut registration = Registration::new(&umem).send_only();
            let refused = registration.bind(NEAR, 0, &zero_copy().config).unwrap_err();
            assert_eq!(refused.errno(), Some(Errno::EOPNOTSUPP), "{refused}");
            let port = registration.bind(NEAR, 0, &XskConfig::default()).unwrap();
            assert!(!port.far.xsk().is_zero_copy());
        }
    }

    #[test]
    fn igb_takes_a_coalescing_setting_and_gives_it_back() {
        if here() {
            let card = Interface::named(NEAR).unwrap();
            let before = card.coalescing().unwrap().value().expect("igb coalesces").rx_usecs;
            for rx_usecs in [Some(20), before] {
                let mut wanted = Coalescing::default();
                wanted.rx_usecs = rx_usecs;
                assert!(card.set_coalescing(&wanted).unwrap().value().is_some(), "verified by the setter");
                assert_eq!(card.coalescing().unwrap().value().unwrap().rx_usecs, rx_usecs);
            }
        }
    }

    #[test]
    fn two_queues_are_bound_and_a_third_is_refused() {
        if here() {
            let channels = || Interface::named(FAR)?.channels();
            let far: Channels = Namespace::named(FAR)
                .unwrap()
                .run(channels)
                .unwrap()
                .unwrap()
                .value()
                .expect("igb has channels");
            assert_eq!(far.combined, Some(2));
            // probes are no IP, so both cards receive them on queue 0
            assert_answered(&zero_copy(), true);
            assert_eq!(bound(1, 4096, Mode::Native, &zero_copy().config), Ok(true));
            assert_eq!(bound(2, 4096, Mode::Native, &zero_copy().config).unwrap_err().0, Some(Errno::EINVAL));
        }
    }

    #[test]
    fn no_zero_copy_here_but_copies() {
        if here() {
            let preferred = with(&zero_copy(), |config| config.zero_copy = ZeroCopy::Prefer);
            assert_answered(&preferred, false);
            let refused = bound(0, 4096, Mode::Native, &zero_copy().config).unwrap_err();
            assert_eq!(refused.0, Some(Errno::EOPNOTSUPP));
            assert!(refused.1.ends_with("--zero-copy=prefer or --copy"), "{}", refused.1);
        }
    }

    #[test]
    fn no_native_mode_here_but_skb_mode() {
        if here() {
            let refused = bound(0, 4096, Mode::Native, &copy().config).unwrap_err();
            assert_eq!(refused.0, Some(Errno::EOPNOTSUPP), "{}", refused.1);
            assert_answered(&Ping { mode: Mode::Skb, ..copy() }, false);
        }
    }

    #[test]
    fn fault_of_the_kind_that_is_asked_for() {
        if here() {
            match env::var("FAULT").unwrap_or_default().as_str() {
                "warn" => {
                    fs::write("/tmp/left", "behind\n").unwrap();
                    fs::write("/dev/kmsg", "WARNING: said by a test\n").unwrap();
                }
                "fail" => panic!("as asked for"),
                "hang" => std::thread::sleep(Duration::from_secs(3600)),
                other => panic!("no such fault: {other:?}"),
            }
        }
    }
}
